"""Adding a body of codes and scales to a sum, in fewer passes than its values would take.

In numpy the products of all codes in a byte are looked up at once, where one scale holds for many
codes of 1, 2 or 4 bits; compiled loops take codes as they are. All ways give the same bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from updates.arrays import F64
from updates.codecs.groups import Piece
from updates.codecs.scaled_body import Levels, ScaledBody
from updates.kernels import Kernels
from updates.workspace import Workspace

_BYTE_BITS = 8
_HALF_BITS = 4
#: Widths whose codes fill bytes without crossing one.
_BYTE_WISE = (1, 2, 4, 8)
#: Fewer values are not worth a table.
_LEAST_VALUES = 8192


@dataclass(frozen=True, slots=True)
class ScaledSum:
    """One body on its way into a sum.

    Attributes:
        body: What is added.
        sums: Shape ``(n,)``, changed in place.
        weight: Factor of the values.
        workspace: Scratch and loops.
    """

    body: ScaledBody
    sums: F64
    weight: float
    workspace: Workspace

    def steps(self) -> Iterator[None]:
        """Add one block of ``spans(0, n)`` at each step."""
        bits, kernels = self.body.bits, self.workspace.kernels
        table = self.body.levels_of_octets() if bits in _BYTE_WISE else None
        for _, pieces in self.body.groups.pieces():
            for piece in pieces:
                if table is None or piece.many > 1 or _length(piece) < _LEAST_VALUES:
                    self._add(piece)
                elif kernels is not None:
                    self._add_parts(piece, table, kernels)
                elif bits < _BYTE_BITS:
                    self._add_parts(piece, table, None)
                else:
                    self._add(piece)
            yield

    def _add(self, piece: Piece) -> None:
        kernels, length = self.workspace.kernels, _length(piece)
        levels = self.body.levels(piece.where)
        if kernels is not None:
            rows = levels.reshape(piece.many, -1)
            sums = self.sums[piece.where].reshape(piece.many, -1)
            kernels.add_levels(sums, rows, self.body.scales[piece.groups], self.weight)
            return
        values, products = self.workspace.values[:length], self.workspace.products[:length]
        self.body.multiply(levels, piece._replace(inside=slice(0, length)), values)
        # A cast and a product are faster than a product that casts; the bits are the same.
        np.copyto(products, values)
        products *= self.weight
        self.sums[piece.where] += products

    def _add_parts(self, piece: Piece, table: Levels, kernels: Kernels | None) -> None:
        """Add what lies in whole bytes by the byte, and up to seven values before and after."""
        codes = _BYTE_BITS // self.body.bits
        start, stop = piece.where.start, piece.where.stop
        first, last = -(-start // codes) * codes, stop // codes * codes
        if kernels is None:
            self._look_up(slice(first, last), piece.group, table)
        else:
            self._add_octets(slice(first, last), piece.group, table, kernels)
        for edge in (slice(start, first), slice(last, stop)):
            if edge.start < edge.stop:
                self._add(piece._replace(where=edge))

    def _look_up(self, where: slice, group: int, table: Levels) -> None:
        of_octets = np.multiply(table, self.body.scales[group], dtype=np.float32)
        wide = of_octets.astype(np.float64)
        wide *= self.weight
        products = self.workspace.products[: where.stop - where.start]
        rows = products.reshape(-1, table.shape[1])
        wide.take(self.body.octets(where), axis=0, out=rows, mode="clip")
        self.sums[where] += products

    def _add_octets(self, where: slice, group: int, table: Levels, kernels: Kernels) -> None:
        sums, octets, scale = self.sums[where], self.body.octets(where), self.body.scales[group]
        first, second, last = (np.float32(table[number, 0]) for number in (0, 1, -1))
        line = np.array((first, second - first), dtype=np.float32)
        if self.body.bits == _BYTE_BITS and last == first + line[1] * (len(table) - 1):
            kernels.add_codes(sums, octets, line, scale, self.weight)
        elif self.body.bits == _BYTE_BITS:
            scales = self.body.scales[group : group + 1]
            kernels.add_levels(sums[None], self.body.levels(where)[None], scales, self.weight)
        elif self.body.bits == _HALF_BITS:
            kernels.add_halves(sums, octets, line, scale, self.weight)
        else:
            words: NDArray[Any] = table.view(f"u{table.shape[1]}").reshape(-1)
            kernels.add_spread(sums, octets, words, scale, self.weight)


def _length(piece: Piece) -> int:
    length: int = piece.where.stop - piece.where.start
    return length
