"""QSGD: stochastic rounding of the share of each value in its bucket's norm.

Source: Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding", NeurIPS 2017, https://arxiv.org/abs/1610.02132, sections 3.1 and 4
(buckets, and the maximum as the norm). Codes have a fixed width here, not Elias' code.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from updates.arrays import F32
from updates.codecs.base import Feedback
from updates.codecs.bits import U8
from updates.codecs.grid import Grid, covering
from updates.codecs.groups import Groups, check_bucket, peaks, sums
from updates.codecs.parameters import check_choice, check_int
from updates.codecs.rounding import stochastic
from updates.codecs.scaled import PlainScaledCodec
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class QsgdCodec(PlainScaledCodec):
    """``sgn(x) * norm * l / s`` with l one of the two whole numbers around ``s |x| / norm``.

    ``s = 2**(bits - 1) - 1``. Wire layout of the body: as ``ScaledCodec``, with ``stride = 1``,
    ``top = s`` and ``norm / s`` as the scale of each bucket; code ``2 s + 1`` is refused. ``bits +
    32 / bucket`` bits a value.

    Unbiased up to ``2**-16 * norm / s``. With the 2-norm, the variance of a bucket of n values is
    at most ``min(n / s**2, sqrt(n) / s) * norm**2``; with the maximum, that of a value is at most
    ``(max / s)**2 / 4``.

    Error feedback: forbidden; the variance may exceed the update.

    Attributes:
        bits: 2 to 8.
        bucket: Values a norm, a power of two from 8; 0: one norm for all.
        norm: ``l2`` or ``max``.
    """

    codec_id: ClassVar[str] = "qsgd"
    number: ClassVar[int] = 9

    bits: int = 4
    bucket: int = 512
    norm: str = "l2"

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 2, 8)
        check_bucket(self.bucket)
        check_choice("norm", self.norm, ("l2", "max"))

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
        """``2 s + 1`` levels."""
        return Grid.with_zero(self.bits)

    def groups(self, layout: Layout) -> Groups:
        """Return the buckets."""
        return Groups.buckets(layout, self.bucket)

    def _scales(self, vector: F32, groups: Groups) -> F32:
        norms = peaks(vector, groups)
        if self.norm == "l2":
            # Not below the largest value, whatever the rounding of the sum.
            norms = np.maximum(norms, np.sqrt(sums(vector, groups, np.square)))
        return covering(norms, self.grid.top, self.grid.max_scale)

    def _codes(self, steps: F32, rng: np.random.Generator) -> U8:
        return stochastic(steps, self.grid.zero, rng)
