"""K values at random positions, which both ends derive from a seed.

Source: Konecny, McMahan, Yu, Richtarik, Suresh, Bacon, "Federated Learning: Strategies for
Improving Communication Efficiency", 2016, https://arxiv.org/abs/1610.05492, section 3 (random
masks); error and feedback after Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS
2018, https://arxiv.org/abs/1809.07599.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from updates.codecs.public_random import distinct_positions
from updates.codecs.rice import Positions
from updates.codecs.seeded_share import SeededShareCodec
from updates.codecs.sparse_parameters import share_of
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class RandKCodec(SeededShareCodec):
    """``K = ceil(fraction * n)`` values at positions of a public seed; the others decode to zero.

    Wire layout of the body: as ``SeededShareCodec``, one part by ascending position
    (``public_random.distinct_positions``). 16 bits a sent value and no bits for positions:
    ``16 * fraction`` a value of the vector.

    With ``unbiased`` a decoded value is ``n / K`` times the sent one: right on the mean, with a
    mean squared error of ``(n/K - 1) ||x||**2``, so error feedback is forbidden. Without, the
    decoded values are those sent and the mean squared error is ``(1 - K/n) ||x||**2``: error
    feedback is required. Rounding to float16 adds ``2**-11`` relative; decoded values beyond the
    largest float32 are clipped.

    Attributes:
        fraction: Share of the values that is sent, above 0 and up to 1.
        unbiased: Whether decoded values are scaled by ``n / K``.
    """

    codec_id: ClassVar[str] = "randk"
    number: ClassVar[int] = 18

    fraction: float = 0.01
    unbiased: bool = False

    def _parts(self, seed: int, layout: Layout) -> Iterator[tuple[Positions, float]]:
        count = self._sent(layout)
        factor = layout.size / count if self.unbiased else 1.0
        yield distinct_positions(seed, count, layout.size), factor

    def _sent(self, layout: Layout) -> int:
        return share_of(layout.size, self.fraction)
