"""What quantizers with a scale a group and a grid of equal steps have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, F64
from updates.codecs import bits
from updates.codecs.base import Block, Codec
from updates.codecs.groups import Groups
from updates.codecs.header import require_body_length
from updates.errors import NonFiniteError
from updates.layout import Layout

_SCALE_BYTES = 4
_MAX_F32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Grid:
    """Levels at equal distances: ``code - zero`` for ``0 <= code < levels``, in steps.

    Attributes:
        bits: Width of a code.
        levels: How many codes have a meaning.
    """

    bits: int
    levels: int

    @classmethod
    def with_zero(cls, width: int) -> "Grid":
        """Return ``2**width - 1`` levels around one that is zero; one code is never sent."""
        return cls(width, (1 << width) - 1)

    @classmethod
    def mid_rise(cls, width: int) -> "Grid":
        """Return ``2**width`` levels, half of a step off zero to either side."""
        return cls(width, 1 << width)

    @property
    def zero(self) -> float:
        """Code of the value zero; between two codes on a mid-rise grid. Also the top level."""
        return (self.levels - 1) / 2

    @property
    def max_scale(self) -> np.float32:
        """The largest float32 whose product with the top level is one too."""
        return scale_at_most(min(_MAX_F32, _MAX_F32 / self.zero), self.zero)


def scale_at_most(value: float, top: float) -> np.float32:
    """Return the float32 nearest to a value, but such that ``top`` times it is finite."""
    scale: np.float32 = np.float32(value)
    if float(scale) * top > _MAX_F32:
        scale = np.nextafter(scale, np.float32(0))
    return scale


def covering(peaks: F64, top: float, limit: np.float32) -> F32:
    """Return scales with ``peak / scale <= top``, as small as float32 allows.

    Args:
        peaks: Largest magnitude of each group.
        top: The outermost level in steps.
        limit: No scale may be larger; groups that would need one are clipped to ``top * limit``.
    """
    scales = np.minimum(peaks / top, float(limit)).astype("<f4")
    short = (scales.astype(np.float64) * top < peaks) & (scales < limit)
    scales[short] = np.nextafter(scales[short], np.float32(np.inf))
    return scales


@dataclass(frozen=True, slots=True)
class ScaledCodec(Codec):
    """A step a group and a code a value.

    Wire layout of the body: one float32 LE scale a group, at least 0, then ``n`` codes as ``bits``
    packs them, all in canonical order; value = scale * (code - zero) in float32.
    """

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The levels."""

    @abstractmethod
    def groups(self, layout: Layout) -> Groups:
        """Return which values share a scale."""

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        groups, grid = self.groups(layout), self.grid
        require_body_length(len(body), self._body_bound(layout))
        scales = np.frombuffer(body, dtype="<f4", count=groups.count)
        if not np.all((scales >= 0) & (scales <= grid.max_scale)):
            message = f"update: a scale is not finite, or not in 0 to {grid.max_scale}"
            raise NonFiniteError(message)
        packed = np.frombuffer(body, dtype=np.uint8, offset=scales.nbytes)
        bits.check(packed, layout.size, grid.bits, grid.levels)
        return _decoded(packed, scales.astype(np.float32, copy=False), groups, grid)

    def _body_bound(self, layout: Layout) -> int:
        packed = bits.packed_bytes(layout.size, self.grid.bits)
        return _SCALE_BYTES * self.groups(layout).count + packed


@dataclass(frozen=True, slots=True)
class PlainScaledCodec(ScaledCodec):
    """A scaled codec whose scale is the step, and whose codes depend on one value each."""

    @abstractmethod
    def _scales(self, vector: F32, groups: Groups) -> F32:
        """Return the scale of each group, at most ``grid.max_scale``."""

    @abstractmethod
    def _codes(self, steps: F32, rng: np.random.Generator) -> bits.U8:
        """Return the codes of one block of values in steps, which may be spoilt."""

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        groups, grid = self.groups(layout), self.grid
        scales = self._scales(vector, groups)
        parts: list[Buffer] = [scales.astype("<f4").data]
        for steps in in_steps(vector, groups, scales):
            if scales.max() >= grid.max_scale:
                np.clip(steps, -grid.zero, grid.zero, out=steps)
            parts.append(bits.pack(self._codes(steps, rng), grid.bits).data)
        return parts


def in_steps(vector: F32, groups: Groups, scales: F32) -> Iterator[F32]:
    """Yield each block divided by the scales of its groups; where a scale is 0, zeros."""
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    for span, pieces in groups.pieces():
        steps = np.empty(span.stop - span.start, dtype=np.float32)
        for piece in pieces:
            divisor = divisors[piece.groups, None]
            np.divide(piece.rows(vector), divisor, out=piece.rows_inside(steps, span))
        yield steps


def _decoded(packed: bits.U8, scales: F32, groups: Groups, grid: Grid) -> Iterator[Block]:
    zero = np.float32(grid.zero)
    for span, pieces in groups.pieces():
        values = bits.unpack_span(packed, span, grid.bits).astype(np.float32)
        values -= zero
        for piece in pieces:
            rows = piece.rows_inside(values, span)
            np.multiply(rows, scales[piece.groups, None], out=rows)
        yield span, values
