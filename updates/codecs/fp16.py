"""Half precision: IEEE 754-2008 binary16, round to nearest even."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from updates.arrays import F32, spans
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.header import require_body_length
from updates.errors import NonFiniteError
from updates.layout import Layout

#: The largest finite half; what is beyond is clipped to it.
MAX_HALF = 65504.0

_ITEM_BYTES = 2
_MAGNITUDE_BITS = 0x7FFF
_INFINITY_BITS = 0x7C00


@dataclass(frozen=True, slots=True)
class Fp16Codec(Codec):
    """Each value cast to half precision, clipped to +-65504.

    Wire layout of the body: ``n`` float16 LE in canonical order. 16 bits a value.
    Error of a value x: at most ``2**-11 * |x|`` for ``2**-14 <= |x| <= 65504``, at most ``2**-25``
    below. Biased, but by no more than that; deterministic.
    """

    codec_id: ClassVar[str] = "fp16"
    number: ClassVar[int] = 2
    in_step: ClassVar[bool] = True

    @property
    def is_biased(self) -> bool:
        """By at most the rounding of a half."""
        return True

    @property
    def feedback(self) -> Feedback:
        """Its error is a small part of each value."""
        return "allowed"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del rng
        halves = np.empty(layout.size, dtype="<f2")
        for span in spans(0, layout.size):
            halves[span] = np.clip(vector[span], -MAX_HALF, MAX_HALF)
        return (halves.data,)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        _check_finite(np.frombuffer(body, dtype="<u2"))
        halves = np.frombuffer(body, dtype="<f2")
        return ((span, halves[span].astype(np.float32)) for span in spans(0, layout.size))

    def _body_bound(self, layout: Layout) -> int:
        return _ITEM_BYTES * layout.size


def _check_finite(bits: NDArray[np.uint16]) -> None:
    for span in spans(0, bits.size):
        if (bits[span] & _MAGNITUDE_BITS).max() >= _INFINITY_BITS:
            message = f"update: a half in {span.start}..{span.stop - 1} is not finite"
            raise NonFiniteError(message)
