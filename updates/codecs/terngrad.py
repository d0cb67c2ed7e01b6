"""TernGrad: each value becomes minus the largest of its tensor, zero or plus the largest.

Source: Wen, Xu, Yan, Wu, Wang, Chen, Li, "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NeurIPS 2017, https://arxiv.org/abs/1705.07878, sections 3.1 and 3.4.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from schemas.errors import PayloadError
from updates.arrays import F32, F64
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.bits import U8
from updates.codecs.groups import Groups, peaks, sums
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_number
from updates.codecs.rounding import stochastic
from updates.codecs.scaled import in_steps
from updates.errors import NonFiniteError
from updates.layout import Layout

_SCALE_BYTES = 4
_DIGITS = 5
_POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
_BYTES = 3**_DIGITS
#: The digits of every byte that holds five of them.
_TABLE = (np.arange(_BYTES)[:, None] // _POWERS % 3).astype(np.uint8)
_MAX_CLIP = 1e6


@dataclass(frozen=True, slots=True)
class TernGradCodec(Codec):
    """``s * sgn(x) * b`` with b one with probability ``|x| / s``, s the largest of the tensor.

    Before that each tensor is clipped to ``clip`` times its root mean square (the source takes the
    standard deviation; gradients have a mean near zero, and this keeps a tensor of one value).

    Wire layout of the body: s of each tensor (float32 LE), then digits 0, 1, 2 for -s, 0, s, five
    a byte in base 3, the first the lowest, with zeros at the end; all in canonical order.
    ``1.6 + 32 / (values a tensor)`` bits a value.

    Variance of a clipped value: ``|x| (s - |x|)``, at most ``s**2 / 4``. Unbiased up to
    ``2**-16 * s`` without clipping (``clip`` 0); with it, values beyond the clip lose the excess.

    Error feedback: forbidden; the variance exceeds the update as a rule.

    Attributes:
        clip: In root mean squares; 0: none.
    """

    codec_id: ClassVar[str] = "terngrad"
    number: ClassVar[int] = 10

    clip: float = 2.5

    def __post_init__(self) -> None:
        """Check the clip."""
        check_number("clip", self.clip, 0, _MAX_CLIP)

    @property
    def is_random(self) -> bool:
        """Its rounding is."""
        return True

    @property
    def is_biased(self) -> bool:
        """Where it clips."""
        return self.clip > 0

    @property
    def feedback(self) -> Feedback:
        """Of high variance."""
        return "forbidden"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        groups = Groups.tensors(layout)
        scales = self._largest(vector, groups).astype("<f4")
        digits = np.zeros(layout.size + -layout.size % _DIGITS, dtype=np.uint8)
        begin = 0
        for steps in in_steps(vector, groups, scales, 1):
            np.clip(steps, -1, 1, out=steps)
            digits[begin : begin + steps.size] = stochastic(steps, 1, rng)
            begin += steps.size
        columns = digits.reshape(-1, _DIGITS)
        packed = columns[:, 0].copy()
        for digit in range(1, _DIGITS):
            packed += columns[:, digit] * _POWERS[digit]
        return (scales.data, packed.data)

    def _largest(self, vector: F32, groups: Groups) -> F64:
        largest = peaks(vector, groups)
        if self.clip == 0:
            return largest
        squares = sums(vector, groups, np.square)
        return np.minimum(largest, self.clip * np.sqrt(squares / groups.counts()))

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        scales = np.frombuffer(body, dtype="<f4", count=len(layout.tensors))
        if not np.all((scales >= 0) & np.isfinite(scales)):
            message = "update: a scale is not finite, or below 0"
            raise NonFiniteError(message)
        packed = np.frombuffer(body, dtype=np.uint8, offset=scales.nbytes)
        _check_digits(packed, layout.size)
        return _decoded(packed, scales.astype(np.float32, copy=False), layout)

    def _body_bound(self, layout: Layout) -> int:
        return _SCALE_BYTES * len(layout.tensors) + -(-layout.size // _DIGITS)


def _check_digits(packed: U8, count: int) -> None:
    largest = int(packed.max())
    if largest >= _BYTES:
        message = f"update: byte {largest} holds no {_DIGITS} digits, limit {_BYTES - 1}"
        raise PayloadError(message)
    used = count - _DIGITS * (packed.size - 1)
    if int(packed[-1]) >= 3**used:
        message = f"update: the {_DIGITS - used} digits after the last value are not zero"
        raise PayloadError(message)


def _decoded(packed: U8, scales: F32, layout: Layout) -> Iterator[Block]:
    for span, pieces in Groups.tensors(layout).pieces():
        first, last = span.start // _DIGITS, -(-span.stop // _DIGITS)
        digits = _TABLE[packed[first:last]].reshape(-1)[span.start - first * _DIGITS :]
        for piece in pieces:
            values = digits[piece.inside].astype(np.float32)
            values -= np.float32(1)
            values *= scales[piece.group]
            yield piece.where, values
