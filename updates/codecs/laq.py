"""LAQ's innovation: what an update differs by from the vector that both ends hold, in few bits.

Source: Sun, Chen, Giannakis, Yang, "Communication-Efficient Distributed Learning via Lazily
Aggregated Quantized Gradients", NeurIPS 2019, https://arxiv.org/abs/1909.07588, section 2.1. What
both ends hold, and when a device need not send, is in ``updates.lazy``.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from schemas.errors import PayloadError
from updates.arrays import F32, peak, spans
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.bits import U8, check, pack, packed_bytes, unpack_span
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_flag, check_int
from updates.errors import NonFiniteError
from updates.layout import Layout

_SKIP, _INNOVATION = 0, 1
_HEAD = struct.Struct("<Bf")


@dataclass(frozen=True, slots=True)
class LaqCodec(Codec):
    """A uniform grid of ``2**bits`` points from -R to R, R the largest magnitude of the vector.

    Wire layout of the body: a flag (u8). 0: nothing changes, and the body ends here. 1: R (f32 LE,
    above 0), then ``n`` codes of ``bits`` bits each, filled from the least significant, padded
    with 0 bits to a byte. ``value = R * (2 * code - L) / L`` with ``L = 2**bits - 1``, in float64
    and then rounded to float32. ``40 + bits * n`` bits.

    A code is ``floor((x + R) * L / (2 * R) + 1/2)``: the error of a value is at most ``R / L``,
    and biased, but R is the largest change, so it vanishes as the updates settle. With
    ``stochastic`` a uniform number takes the place of 1/2: unbiased, the error below ``2 R / L``,
    its variance at most ``(R / L)**2``. No error feedback: the next innovation holds the error
    already, since it is taken from what the other end has made of this one.

    Attributes:
        bits: Of a code, 1 to 8. 8 is the paper's for networks; 4 is enough for convex problems
            with full gradients, fewer may diverge. With local training at 4 bits the error of the
            grid passes for a change that need not be sent, and accuracy is lost.
        stochastic: Whether codes are rounded at random.
        skips: Whether a device may skip a round by the rule of ``updates.lazy``.
    """

    codec_id: ClassVar[str] = "laq"
    number: ClassVar[int] = 20

    bits: int = 8
    stochastic: bool = False
    skips: bool = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 1, 8)
        check_flag("stochastic", self.stochastic)
        check_flag("skips", self.skips)

    @property
    def is_random(self) -> bool:
        """With ``stochastic``."""
        return self.stochastic

    @property
    def is_biased(self) -> bool:
        """Rounding to the nearest point is."""
        return not self.stochastic

    @property
    def feedback(self) -> Feedback:
        """The reference is a memory already; with both an error would be sent twice."""
        return "forbidden"

    @property
    def needs_reference(self) -> bool:
        """What is encoded is the difference to it."""
        return True

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        radius = peak(vector)
        if radius == 0:
            return (bytes([_SKIP]),)
        packed = [
            pack(self._codes(vector[span], radius, rng), self.bits).data
            for span in spans(0, layout.size)
        ]
        return (_HEAD.pack(_INNOVATION, radius), *packed)

    def _codes(self, values: F32, radius: float, rng: np.random.Generator) -> U8:
        top = float((1 << self.bits) - 1)
        steps = values.astype(np.float64)
        steps += radius
        steps *= top / (2 * radius)
        steps += rng.random(steps.size) if self.stochastic else 0.5
        np.floor(steps, out=steps)
        return np.clip(steps, 0, top, out=steps).astype(np.uint8)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        if len(body) == 1 and body[0] == _SKIP:
            return ()
        require_body_length(len(body), self._body_bound(layout))
        flag, radius = _HEAD.unpack_from(body)
        if flag != _INNOVATION:
            message = f"update: flag {flag}, {_INNOVATION} is expected in a body of this length"
            raise PayloadError(message)
        if not (np.isfinite(radius) and radius > 0):
            message = f"update: radius {radius}, it must be finite and above 0"
            raise NonFiniteError(message)
        packed = np.frombuffer(body, dtype=np.uint8, offset=_HEAD.size)
        check(packed, layout.size, self.bits, 1 << self.bits)
        return _blocks(packed, self._points(radius), layout.size, self.bits)

    def _points(self, radius: float) -> F32:
        top = (1 << self.bits) - 1
        numerators = 2 * np.arange(top + 1, dtype=np.float64) - top
        return (radius * (numerators / top)).astype(np.float32)

    def _body_bound(self, layout: Layout) -> int:
        return _HEAD.size + packed_bytes(layout.size, self.bits)


def _blocks(packed: U8, points: F32, count: int, bits: int) -> Iterator[Block]:
    for span in spans(0, count):
        yield span, points[unpack_span(packed, span, bits)]
