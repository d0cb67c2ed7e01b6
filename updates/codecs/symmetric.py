"""Symmetric uniform quantization with a level at zero, 2 to 8 bits a value.

Source: the operator of Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient SGD
via Gradient Quantization and Encoding", NeurIPS 2017, https://arxiv.org/abs/1610.02132, section
3.1, with the maximum in place of the 2-norm, over whole tensors or the whole vector. Nearest
rounding is what inference engines call INT8.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from updates.arrays import F32
from updates.codecs.base import Feedback
from updates.codecs.bits import U8
from updates.codecs.grid import Grid
from updates.codecs.groups import Groups
from updates.codecs.parameters import check_choice, check_flag, check_int
from updates.codecs.rounding import nearest, stochastic
from updates.codecs.scaled import PlainScaledCodec
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class SymmetricCodec(PlainScaledCodec):
    """Codes of ``L = 2**(bits - 1) - 1`` levels to either side of zero.

    Wire layout of the body: as ``ScaledCodec``, with ``stride = 1`` and ``top = L``; code ``2 L +
    1`` is refused. ``bits + 32 / (values a scale)`` bits a value.

    With ``scale = max|x| / L``: stochastic rounding is unbiased up to ``2**-16 * scale``, its
    error below ``scale`` and its variance at most ``scale**2 / 4``. Nearest rounding is biased,
    its error at most ``scale / 2`` and never above ``|x|``.

    Error feedback: forbidden with stochastic rounding, whose error may exceed the update; allowed
    with nearest rounding, which is a contraction: each error is at most ``|x|``, the largest is 0.

    Attributes:
        bits: 2 to 8.
        stochastic: Whether rounding is random and right on the mean, or to the nearest.
        scope: ``tensor``: a scale for each; ``vector``: one for all.
    """

    codec_id: ClassVar[str] = "symmetric"
    number: ClassVar[int] = 7

    bits: int = 8
    stochastic: bool = True
    scope: str = "tensor"

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 2, 8)
        check_flag("stochastic", self.stochastic)
        check_choice("scope", self.scope, ("tensor", "vector"))

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
        """Nearest rounding never makes an error above the value itself."""
        return "forbidden" if self.stochastic else "allowed"

    @property
    def grid(self) -> Grid:
        """``2 L + 1`` levels."""
        return Grid.with_zero(self.bits)

    def groups(self, layout: Layout) -> Groups:
        """Return tensors, or the whole."""
        if self.scope == "vector":
            return Groups.buckets(layout, 0)
        return Groups.tensors(layout)

    def _codes(self, steps: F32, rng: np.random.Generator) -> U8:
        if self.stochastic:
            return stochastic(steps, self.grid.zero, rng)
        return nearest(steps, self.grid.zero)
