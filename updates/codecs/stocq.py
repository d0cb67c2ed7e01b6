"""StocQ: stochastic rounding between levels that leave out zero.

Source: Zhang, Kannan, Cloninger, Saab, "Sigma-Delta and Distributed Noise-Shaping Quantization
Methods for Random Fourier Features", Information and Inference 13(1), 2024,
https://arxiv.org/abs/2106.02614; here with a scale a bucket.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from updates.arrays import F32
from updates.codecs.base import Feedback
from updates.codecs.bits import U8
from updates.codecs.grid import Grid
from updates.codecs.groups import Groups, check_bucket
from updates.codecs.parameters import check_int
from updates.codecs.rounding import stochastic
from updates.codecs.scaled import PlainScaledCodec
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class StocQCodec(PlainScaledCodec):
    """The ``2 K = 2**bits`` levels ``+-(j - 1/2) d``, j = 1..K, with ``d = 2 max|x| / (2 K - 1)``.

    Wire layout of the body: as ``ScaledCodec``, with ``stride = 2``, ``top = 2 K - 1`` and ``d /
    2`` as the scale of each bucket. ``bits + 32 / bucket`` bits a value.

    Unbiased up to ``2**-16 * d``: a value between two levels takes the upper one with the
    probability of its share of the way. Error below d, variance at most ``d**2 / 4``. With one bit
    each value becomes plus or minus the largest of its bucket.

    Error feedback: forbidden; the variance may exceed the update.

    Attributes:
        bits: 1 to 8.
        bucket: Values a scale, a power of two from 8; 0: one scale for all.
    """

    codec_id: ClassVar[str] = "stocq"
    number: ClassVar[int] = 8

    bits: int = 4
    bucket: int = 512

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 1, 8)
        check_bucket(self.bucket)

    @property
    def is_random(self) -> bool:
        """Its rounding is."""
        return True

    @property
    def is_biased(self) -> bool:
        """Right on the mean."""
        return False

    @property
    def feedback(self) -> Feedback:
        """Unbiased, of high variance."""
        return "forbidden"

    @property
    def grid(self) -> Grid:
        """``2 K`` levels."""
        return Grid.mid_rise(self.bits)

    def groups(self, layout: Layout) -> Groups:
        """Return the buckets."""
        return Groups.buckets(layout, self.bucket)

    def _codes(self, steps: F32, rng: np.random.Generator) -> U8:
        return stochastic(steps, self.grid.zero, rng)
