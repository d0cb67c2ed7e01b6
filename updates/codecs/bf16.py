"""Brain floating point: the upper half of a float32, rounded to nearest even.

Source: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019,
https://arxiv.org/abs/1905.12322, section 2.
"""

from collections.abc import Iterable, Iterator, Sequence
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

_ITEM_BYTES = 2
_MAGNITUDE_BITS = 0x7FFF
_INFINITY_BITS = 0x7F80
#: The largest finite value, as bits of a float32.
_MAX_BITS = np.uint32(0x7F7F0000)
_HALF_BITS = np.uint32(0x7FFF)
_SHIFT = np.uint32(16)


@dataclass(frozen=True, slots=True)
class Bf16Codec(Codec):
    """Each value with the exponent of a float32 and 8 significant bits.

    Wire layout of the body: ``n`` uint16 LE in canonical order, each the upper half of a float32.
    16 bits a value.

    Error of a value x: at most ``2**-8 * |x|`` for ``|x| >= 2**-126``, at most ``2**-134`` below.
    What would round to infinity becomes the largest finite value. Biased, but by no more than
    that; deterministic. Error feedback: allowed; the error is a small part of each value.
    """

    codec_id: ClassVar[str] = "bf16"
    number: ClassVar[int] = 5
    in_step: ClassVar[bool] = True

    @property
    def is_biased(self) -> bool:
        """By at most the rounding to 8 significant bits."""
        return True

    @property
    def feedback(self) -> Feedback:
        """Its error is a small part of each value."""
        return "allowed"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del rng
        halves = np.empty(layout.size, dtype="<u2")
        for span in spans(0, layout.size):
            halves[span] = _rounded(vector[span])
        return (halves.data,)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        halves = np.frombuffer(body, dtype="<u2")
        for span in spans(0, layout.size):
            if (halves[span] & _MAGNITUDE_BITS).max() >= _INFINITY_BITS:
                message = f"update: a value in {span.start}..{span.stop - 1} is not finite"
                raise NonFiniteError(message)
        return _widened(halves, layout)

    def _body_bound(self, layout: Layout) -> int:
        return _ITEM_BYTES * layout.size


def _rounded(values: F32) -> NDArray[np.uint32]:
    """Return the upper halves; adding 0x7FFF and the last kept bit carries to nearest even."""
    patterns = np.ascontiguousarray(values).view(np.uint32)
    signs = patterns & np.uint32(0x80000000)
    magnitudes: NDArray[np.uint32] = patterns ^ signs
    magnitudes += ((magnitudes >> _SHIFT) & np.uint32(1)) + _HALF_BITS
    np.minimum(magnitudes, _MAX_BITS, out=magnitudes)
    magnitudes |= signs
    magnitudes >>= _SHIFT
    return magnitudes


def _widened(halves: NDArray[np.uint16], layout: Layout) -> Iterator[Block]:
    for span in spans(0, layout.size):
        patterns = halves[span].astype(np.uint32)
        patterns <<= _SHIFT
        yield span, patterns.view(np.float32)
