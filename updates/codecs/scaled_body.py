"""A checked body of codes and scales, read in blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from updates.arrays import BLOCK_VALUES, F32
from updates.codecs import bits as packing
from updates.codecs.groups import Groups, Piece

Levels: TypeAlias = NDArray[np.int8] | NDArray[np.int16]

_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class ScaledBody:
    """Values that are levels times the scale of their group, in float32.

    Attributes:
        packed: The codes as ``bits`` packs them.
        bits: Width of a code.
        level: Turns codes, which it may spoil if they are narrower than a byte, into levels.
        scales: One a group.
        groups: Which values share one.
    """

    packed: packing.U8
    bits: int
    level: Callable[[packing.U8], Levels]
    scales: F32
    groups: Groups

    def __iter__(self) -> Iterator[tuple[slice, F32]]:
        """Yield the values in blocks of ``spans(0, size)``."""
        scratch = np.empty(min(BLOCK_VALUES, self.groups.size), dtype=np.float32)
        for span, pieces in self.groups.pieces():
            values = scratch[: span.stop - span.start]
            levels = self.levels(span)
            for piece in pieces:
                self.multiply(levels, piece, values)
            yield span, values

    def levels(self, where: slice) -> Levels:
        """Return the levels of some values, wherever in a byte they begin."""
        skipped = where.start % _BYTE_BITS if self.bits < _BYTE_BITS else 0
        aligned = slice(where.start - skipped, where.stop)
        return self.level(packing.unpack_span(self.packed, aligned, self.bits))[skipped:]

    def multiply(self, levels: Levels, piece: Piece, values: F32) -> None:
        """Multiply the levels of a block by their scales where the piece is, into ``values``."""
        factor, out = piece.factor(self.scales), piece.rows_inside(values)
        np.multiply(piece.rows_inside(levels), factor, out=out, dtype=np.float32)

    def octets(self, where: slice) -> packing.U8:
        """Return the bytes of values that begin and end with one."""
        codes = _BYTE_BITS // self.bits
        return self.packed[where.start // codes : where.stop // codes]

    def levels_of_octets(self) -> Levels:
        """Return the levels in each of the 256 bytes, shape ``(256, codes in a byte)``."""
        octets = np.arange(1 << _BYTE_BITS, dtype=np.uint8)
        codes = packing.unpack(octets, octets.size * _BYTE_BITS // self.bits, self.bits)
        return self.level(codes).reshape(octets.size, -1)
