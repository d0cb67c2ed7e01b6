"""Uniform quantization between the smallest and the largest value of each tensor.

Source: the quantizer of Suresh, Yu, Kumar, McMahan, "Distributed Mean Estimation with Limited
Communication", ICML 2017, https://arxiv.org/abs/1611.00429, section 2.2 (stochastic k-level).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, F64
from updates.codecs import bits as packing
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.groups import Groups
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_flag, check_int
from updates.codecs.rounding import nearest, stochastic
from updates.errors import NonFiniteError
from updates.layout import Layout

_RANGE_BYTES = 8


@dataclass(frozen=True, slots=True)
class UniformCodec(Codec):
    """``2**bits`` levels from ``lo = min(x)`` to ``hi = max(x)`` of each tensor, both included.

    Wire layout of the body: for each tensor lo and hi (float32 LE), then ``n`` codes as ``bits``
    packs them, all in canonical order; value = lo + s * code with
    ``s = (hi - lo) / (2**bits - 1)``, in float64 and rounded once to float32.
    ``bits + 64 / (values a tensor)`` bits a value.

    Stochastic rounding is unbiased up to ``2**-16 * s``, its error below s and its variance at
    most ``s**2 / 4``. Nearest rounding is biased, its error at most ``s / 2``.

    Error feedback: forbidden. Zero need not be a level, so that many small values beside a large
    one have errors larger than they are, however they are rounded.

    Attributes:
        bits: 1 to 8.
        stochastic: Whether rounding is random and right on the mean, or to the nearest.
    """

    codec_id: ClassVar[str] = "uniform"
    number: ClassVar[int] = 6

    bits: int = 8
    stochastic: bool = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 1, 8)
        check_flag("stochastic", self.stochastic)

    @property
    def is_random(self) -> bool:
        """With stochastic rounding."""
        return self.stochastic

    @property
    def is_biased(self) -> bool:
        """With nearest rounding."""
        return not self.stochastic

    @property
    def feedback(self) -> Feedback:
        """The error may exceed the update."""
        return "forbidden"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        ranges = np.empty((len(layout.tensors), 2), dtype="<f4")
        for row, values in zip(ranges, layout.slices().values(), strict=True):
            row[:] = vector[values].min(), vector[values].max()
        steps = self._steps(ranges)
        parts: list[Buffer] = [ranges.reshape(-1).data]
        for span, pieces in Groups.tensors(layout).pieces():
            block = np.empty(span.stop - span.start, dtype=np.float32)
            for piece in pieces:
                low, step = float(ranges[piece.group, 0]), steps[piece.group]
                shifted = np.subtract(vector[piece.where], low, dtype=np.float64)
                np.divide(shifted, step or np.inf, out=block[piece.inside], casting="same_kind")
            codes = stochastic(block, 0, rng) if self.stochastic else nearest(block, 0)
            parts.append(packing.pack(codes, self.bits).data)
        return parts

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        tensors = len(layout.tensors)
        ranges = np.frombuffer(body, dtype="<f4", count=2 * tensors).reshape(tensors, 2)
        if not (np.isfinite(ranges).all() and (ranges[:, 0] <= ranges[:, 1]).all()):
            message = "update: a tensor's lowest or highest value is not finite, or out of order"
            raise NonFiniteError(message)
        packed = np.frombuffer(body, dtype=np.uint8, offset=ranges.nbytes)
        packing.check(packed, layout.size, self.bits, 1 << self.bits)
        return self._decoded(packed, ranges.astype(np.float32, copy=False), layout)

    def _body_bound(self, layout: Layout) -> int:
        packed = packing.packed_bytes(layout.size, self.bits)
        return _RANGE_BYTES * len(layout.tensors) + packed

    def _steps(self, ranges: F32) -> F64:
        lowest, highest = ranges.astype(np.float64).T
        steps: F64 = (highest - lowest) / ((1 << self.bits) - 1)
        return steps

    def _decoded(self, packed: packing.U8, ranges: F32, layout: Layout) -> Iterator[Block]:
        steps = self._steps(ranges)
        for span, pieces in Groups.tensors(layout).pieces():
            codes = packing.unpack_span(packed, span, self.bits)
            for piece in pieces:
                values = np.multiply(codes[piece.inside], steps[piece.group], dtype=np.float64)
                values += float(ranges[piece.group, 0])
                np.minimum(values, float(ranges[piece.group, 1]), out=values)
                yield piece.where, values.astype(np.float32)
