"""What quantizers with a scale a group and a grid of equal steps have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from updates.arrays import BLOCK_VALUES, F32
from updates.codecs import bits
from updates.codecs.base import Block, Codec
from updates.codecs.grid import Grid, covering
from updates.codecs.groups import Groups, peaks
from updates.codecs.header import Draft, require_body_length
from updates.codecs.scaled_body import ScaledBody
from updates.errors import NonFiniteError
from updates.layout import Layout

_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class ScaledCodec(Codec):
    """A step a group and a code a value.

    Wire layout of the body: one float32 LE scale a group, at least 0, then ``n`` codes as ``bits``
    packs them, all in canonical order; value = scale * (stride * code - top) in float32.
    """

    in_step: ClassVar[bool] = True

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
        return ScaledBody(
            packed, grid.bits, grid.level, scales.astype(np.float32, copy=False), groups
        )

    def _body_bound(self, layout: Layout) -> int:
        packed = bits.packed_bytes(layout.size, self.grid.bits)
        return _SCALE_BYTES * self.groups(layout).count + packed


@dataclass(frozen=True, slots=True)
class PlainScaledCodec(ScaledCodec):
    """A scaled codec whose codes depend on one value each."""

    finds_non_finite: ClassVar[bool] = True

    def _scales(self, vector: F32, groups: Groups) -> F32:
        """Return the scale of each group, at most ``grid.max_scale``: the largest value fits.

        Raises:
            NonFiniteError: A value is not finite.
        """
        return covering(peaks(vector, groups), self.grid.top, self.grid.max_scale)

    @abstractmethod
    def _codes(self, steps: F32, rng: np.random.Generator) -> bits.U8:
        """Return the codes of one block of values in steps, which may be spoilt."""

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Draft:
        groups, grid = self.groups(layout), self.grid
        scales = self._scales(vector, groups)
        draft = Draft(self._body_bound(layout))
        begin = _SCALE_BYTES * groups.count
        draft.body[:begin] = scales.astype("<f4").view(np.uint8)
        clips = scales.max() >= grid.max_scale
        for steps in in_steps(vector, groups, scales, grid.stride):
            if clips:
                np.clip(steps, -grid.zero, grid.zero, out=steps)
            part = bits.pack(self._codes(steps, rng), grid.bits)
            draft.body[begin : begin + part.size] = part
            begin += part.size
        return draft


def in_steps(vector: F32, groups: Groups, scales: F32, stride: int) -> Iterator[F32]:
    """Yield each block divided by the steps of its groups; where a scale is 0, zeros.

    A block is good until the next is asked for, and may be spoilt.
    """
    divisors = np.where(scales > 0, np.float32(stride) * scales, np.float32(np.inf))
    scratch = np.empty(min(BLOCK_VALUES, groups.size), dtype=np.float32)
    for span, pieces in groups.pieces():
        steps = scratch[: span.stop - span.start]
        for piece in pieces:
            divisor = piece.factor(divisors)
            np.divide(piece.rows(vector), divisor, out=piece.rows_inside(steps))
        yield steps
