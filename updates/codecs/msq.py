"""MSQ, memoryless scalar quantization: the nearest of levels that leave out zero.

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
from updates.codecs.rounding import nearest
from updates.codecs.scaled import PlainScaledCodec
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class MsqCodec(PlainScaledCodec):
    """The ``2 K = 2**bits`` levels ``+-(j - 1/2) d``, j = 1..K, with ``d = 2 max|x| / (2 K - 1)``.

    Wire layout of the body: as ``ScaledCodec``, with ``stride = 2``, ``top = 2 K - 1`` and ``d /
    2`` as the scale of each bucket. ``bits + 32 / bucket`` bits a value.

    Biased, deterministic; error of a value at most ``d / 2``, that of the largest of a bucket 0 up
    to rounding. So the squared error of a bucket of B values is at most
    ``(B - 1) / (2 K - 1)**2`` of its squared norm.

    Error feedback: allowed where that share is below 1, else forbidden: many small values beside
    a large one all become ``+- d / 2``, and the memory would grow.

    Attributes:
        bits: 1 to 8.
        bucket: Values a scale, a power of two from 8; 0: one scale for all.
    """

    codec_id: ClassVar[str] = "msq"
    number: ClassVar[int] = 11

    bits: int = 4
    bucket: int = 128

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 1, 8)
        check_bucket(self.bucket)

    @property
    def is_biased(self) -> bool:
        """To the nearest."""
        return True

    @property
    def feedback(self) -> Feedback:
        """Whether the error is less than the update whatever it is."""
        contracts = self.bucket and self.bucket - 1 < (2**self.bits - 1) ** 2
        return "allowed" if contracts else "forbidden"

    @property
    def grid(self) -> Grid:
        """``2 K`` levels."""
        return Grid.mid_rise(self.bits)

    def groups(self, layout: Layout) -> Groups:
        """Return the buckets."""
        return Groups.buckets(layout, self.bucket)

    def _codes(self, steps: F32, rng: np.random.Generator) -> U8:
        del rng
        return nearest(steps, self.grid.zero)
