"""One bit a value: its sign, times the mean magnitude of its tensor.

Source: Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and other Gradient
Compression Schemes", ICML 2019, https://arxiv.org/abs/1901.09847, algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from updates.arrays import F32, check_finite
from updates.codecs.base import Feedback
from updates.codecs.bits import U8
from updates.codecs.grid import Grid
from updates.codecs.groups import Groups, magnitudes
from updates.codecs.scaled import PlainScaledCodec
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class BinCodec(PlainScaledCodec):
    """``a * sign(x)`` with ``a = mean|x|`` of each tensor; the sign of 0 is plus.

    Wire layout of the body: as ``ScaledCodec``, with bits of 1 for plus, ``stride = 2``, ``top =
    1`` and a as the scale. ``1 + 32 / (values a tensor)`` bits a value.

    Biased, deterministic. The squared error of a tensor of n values is
    ``||x||_2**2 - ||x||_1**2 / n``, the least for this shape: 0.363 of a Gaussian's energy.
    A mean beyond half of the largest float32 is clipped to it.

    Error feedback: required; without it what one sign says is soon wrong.
    """

    codec_id: ClassVar[str] = "bin"
    number: ClassVar[int] = 15

    @property
    def is_biased(self) -> bool:
        """Every value becomes one of two."""
        return True

    @property
    def feedback(self) -> Feedback:
        """A contraction that leaves out much."""
        return "required"

    @property
    def grid(self) -> Grid:
        """Two levels, minus and plus one."""
        return Grid.mid_rise(1)

    def groups(self, layout: Layout) -> Groups:
        """Return the tensors."""
        return Groups.tensors(layout)

    def _scales(self, vector: F32, groups: Groups) -> F32:
        totals = magnitudes(vector, groups)
        if not np.isfinite(totals).all():
            check_finite(vector, "update")
        means = totals / groups.counts()
        return np.minimum(means, float(self.grid.max_scale)).astype(np.float32)

    def _codes(self, steps: F32, rng: np.random.Generator) -> U8:
        del rng
        return (steps >= 0).view(np.uint8)
