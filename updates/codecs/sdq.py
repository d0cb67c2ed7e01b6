"""SDQ, Sigma-Delta quantization of order 1 and 2.

Sources: ``shaping``; the one-bit filter of order 2 is that of Guentuerk, "One-Bit Sigma-Delta
Quantization with Exponential Accuracy", Comm. Pure Appl. Math. 56(11), 2003,
https://doi.org/10.1002/cpa.3044.
"""

from dataclasses import dataclass
from typing import ClassVar

from updates.codecs.parameters import check_int
from updates.codecs.shaping import Filter, ShapedCodec


@dataclass(frozen=True, slots=True)
class SdqCodec(ShapedCodec):
    """Sums of errors stay small: errors go to the high frequencies of the vector.

    Order 1 adds ``u_{i-1}``, order 2 ``2 u_{i-1} - u_{i-2}`` (with one bit
    ``(7 u_{i-1} - u_{i-7}) / 6``); h is 1, 3 (7/6 + 1/6).

    Wire layout of the body: as ``ScaledCodec``, with ``stride = 2``, ``top = 2 K - 1`` and
    ``d / 2 = max|x| / (2 K - h)`` as the scale of each bucket; ``K = 2**(bits - 1)``. A lane is a
    bucket, or 512 values where there is one scale. ``bits + 32 / bucket`` bits a value.

    Biased, deterministic. With order 1 the errors of any first values of a lane sum to at most
    ``d / 2``; the error of one value is at most ``(1 + h) d / 2``, its square on the mean twice
    that of ``msq``. What profits are sums of neighbours, as in the source; a mean of updates does
    not.

    Error feedback: allowed where the bound of a bucket of B values,
    ``B (1 + h)**2 / (2 K - h)**2`` of its squared norm, is below 1; else forbidden.

    Attributes:
        bits: 1 to 8.
        bucket: Values a scale, a power of two from 8; 0: one scale for all.
        order: 1 or 2.
    """

    codec_id: ClassVar[str] = "sdq"
    number: ClassVar[int] = 13

    order: int = 1

    def __post_init__(self) -> None:
        """Check the parameters."""
        ShapedCodec.__post_init__(self)
        check_int("order", self.order, 1, 2)

    @property
    def weights(self) -> Filter:
        """The filter of the order."""
        if self.order == 1:
            return {1: 1.0}
        return {1: 7 / 6, 7: -1 / 6} if self.bits == 1 else {1: 2.0, 2: -1.0}
