"""BetaQ, distributed noise-shaping quantization.

Sources: ``shaping``; Chou, Guentuerk, "Distributed Noise-Shaping Quantization: I. Beta Duals of
Finite Frames and Near-Optimal Quantization of Random Measurements", Constructive Approximation
44(1), 2016, https://arxiv.org/abs/1405.4628.
"""

from dataclasses import dataclass
from typing import ClassVar

from updates.codecs.parameters import check_int, check_number
from updates.codecs.shaping import Filter, ShapedCodec

_MAX_BETA = 1.9
_MAX_LAMBDA = 65_536


@dataclass(frozen=True, slots=True)
class BetaQCodec(ShapedCodec):
    """Adds ``beta * u_{i-1}``, with u zero at the beginning of each ``block`` values.

    Wire layout of the body: as ``ScaledCodec``, with ``stride = 2``, ``top = 2 K - 1`` and ``d / 2
    = max|x| / (2 K - beta)`` as the scale of each bucket; ``K = 2**(bits - 1)``. That is the
    source's ``(2 K - beta) / (2 K - 1)``, before and after, in one. Blocks begin anew with each
    bucket, or each 512 values where there is one scale. ``bits + 32 / bucket`` bits a value.

    Biased, deterministic. The errors of a block, weighted by ``beta**-1, beta**-2, ...``, sum to
    ``u * beta**-block``: the source decodes such sums. An update is decoded value by value, where
    the error is at most ``(1 + beta) d / 2``, its square on the mean above twice that of ``msq``.

    Error feedback: allowed where the bound of a bucket of B values,
    ``B (1 + beta)**2 / (2 K - beta)**2`` of its squared norm, is below 1; else forbidden.

    Attributes:
        bits: 1 to 8.
        bucket: Values a scale, a power of two from 8; 0: one scale for all.
        beta: 1 to 1.9.
        block: Values after which the memory is forgotten (lambda in the source).
    """

    codec_id: ClassVar[str] = "betaq"
    number: ClassVar[int] = 14

    beta: float = 1.1
    block: int = 15

    def __post_init__(self) -> None:
        """Check the parameters."""
        ShapedCodec.__post_init__(self)
        check_number("beta", self.beta, 1, _MAX_BETA)
        check_int("block", self.block, 1, _MAX_LAMBDA)

    @property
    def weights(self) -> Filter:
        """One error, amplified."""
        return {1: float(self.beta)}

    @property
    def restart(self) -> int:
        """The block."""
        return self.block
