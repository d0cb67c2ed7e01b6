"""A uniform quantizer whose levels are entropy coded, at a wanted number of bits a value.

Sources: Gish, Pierce, "Asymptotically Efficient Quantizing", IEEE Trans. Inf. Theory 1968 (uniform
levels are the best where an entropy code follows); Sullivan, "Efficient Scalar Quantization of
Exponential and Laplacian Random Variables", IEEE Trans. Inf. Theory 1996 (low rates).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, peak, spans
from updates.codecs import ecsq_body
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.ecsq_step import find_step, largest_step
from updates.codecs.ecsq_tokens import Levels
from updates.codecs.parameters import check_number
from updates.codecs.scaled_halves import times_power_of_two
from updates.layout import Layout

_MIN_BITS, _MAX_BITS = 0.05, 6.0
#: With the largest step every level is 0, 1 or -1: at most ``log2(3)`` bits and some rounding.
_LARGEST_STEP_BITS = 1.6
_SPARE_BITS = 0.5
_TABLES_BYTES = 1024
_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class EcsqCodec(Codec):
    """Each value as a whole number of steps, coded at its entropy; the step follows from ``bits``.

    The vector is scaled by a power of two; the step is the smallest whose levels take at most
    ``bits`` a value of the vector (entropy of small magnitudes, plain bits for signs and places
    within large ones). The levels 1 to 8 decode to the mean of what they stand for.

    Wire layout of the body: ``ecsq_body``. Long vectors take ``bits`` a value to about 2 % more;
    tables and lanes add some 50 to 200 bytes. An update with fewer large values than ``bits``
    would pay for still has its largest value sent, at up to 1.6 bits a value if all are equal.

    Biased: a value is at most half a step from its level, and the mean of a level takes away the
    square error that is left of a Gaussian, 0.350, 0.089, 0.0056 of ``||x||**2`` at 1, 2, 4 bits
    (0.62, 0.79, 0.91 at 0.5, 0.25, 0.1), and less of anything with heavier tails. What a low rate
    drops is lost without error feedback.

    Attributes:
        bits: Wanted bits a value, 0.05 to 6.
    """

    codec_id: ClassVar[str] = "ecsq"
    number: ClassVar[int] = 17

    bits: float = 1.0

    def __post_init__(self) -> None:
        """Check the bits."""
        check_number("bits", self.bits, _MIN_BITS, _MAX_BITS)

    @property
    def is_biased(self) -> bool:
        """Small values become zero, the same ones every time."""
        return True

    @property
    def feedback(self) -> Feedback:
        """What becomes zero must not be lost."""
        return "required"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del rng
        largest, exponent = math.frexp(peak(vector))
        scaled = times_power_of_two(vector, -exponent)
        scratch = np.abs(scaled)
        step = find_step(scratch, self.bits) if largest > 0 else 1.0
        while True:
            levels = _levels(np.abs(scaled, out=scratch), step)
            body = ecsq_body.write(levels, scaled, exponent, step)
            if len(body) <= self._body_bound(layout):
                return (body,)
            step = min(2 * step, float(np.float32(largest_step(largest))))

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        opened = ecsq_body.read(body, layout.size)
        return _sparse_blocks(opened) if opened.is_zero is None else _dense_blocks(opened)

    def _body_bound(self, layout: Layout) -> int:
        bits = max(self.bits, _LARGEST_STEP_BITS) + _SPARE_BITS
        return _TABLES_BYTES + math.ceil(bits * layout.size / _BYTE_BITS)


def _levels(magnitudes: F32, step: float) -> Levels:
    """Return the levels in the memory of the magnitudes."""
    magnitudes /= np.float32(step)
    np.rint(magnitudes, out=magnitudes)
    levels = magnitudes.view(np.int32)
    np.copyto(levels, magnitudes, casting="unsafe")
    return levels


def _sparse_blocks(opened: ecsq_body.Opened) -> Iterator[Block]:
    if opened.positions is not None:
        for span in spans(0, opened.values.size):
            yield opened.positions[span], opened.values[span]


def _dense_blocks(opened: ecsq_body.Opened) -> Iterator[Block]:
    if opened.is_zero is None:
        return
    start = 0
    for span in spans(0, opened.is_zero.size):
        coded = ~opened.is_zero[span]
        stop = start + int(np.count_nonzero(coded))
        block = np.zeros(coded.size, dtype=np.float32)
        block[coded] = opened.values[start:stop]
        yield span, block
        start = stop
