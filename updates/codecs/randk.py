"""K values at random positions, which both ends derive from a seed.

Source: Konecny, McMahan, Yu, Richtarik, Suresh, Bacon, "Federated Learning: Strategies for
Improving Communication Efficiency", 2016, https://arxiv.org/abs/1610.05492, section 3 (random
masks); error and feedback after Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS
2018, https://arxiv.org/abs/1809.07599.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, spans
from updates.codecs import scaled_halves
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_flag
from updates.codecs.public_random import distinct_positions, draw_seed
from updates.codecs.rice import Positions
from updates.codecs.sparse_parameters import check_fraction, share_of
from updates.layout import Layout

_HEAD = struct.Struct("<Qh")


@dataclass(frozen=True, slots=True)
class RandKCodec(Codec):
    """``K = ceil(fraction * n)`` values at positions of a public seed; the others decode to zero.

    Wire layout of the body: seed (u64 LE), exponent e (i16 LE), K float16 LE, each a value times
    ``2**(15 - e)``, by ascending position (``public_random.distinct_positions``). 16 bits a sent
    value and no bits for positions: ``16 * fraction`` a value of the vector.

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

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_fraction(self.fraction)
        check_flag("unbiased", self.unbiased)

    @property
    def is_random(self) -> bool:
        """Its positions are."""
        return True

    @property
    def is_biased(self) -> bool:
        """Unless it makes up for the values that are not sent."""
        return not self.unbiased

    @property
    def feedback(self) -> Feedback:
        """The scaled error exceeds the update; the plain one drops most of it."""
        return "forbidden" if self.unbiased else "required"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        seed = draw_seed(rng)
        positions = distinct_positions(seed, share_of(layout.size, self.fraction), layout.size)
        exponent, halves = scaled_halves.encode(vector[positions])
        return (_HEAD.pack(seed, exponent), halves.data)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        seed, exponent = _HEAD.unpack_from(body)
        scaled_halves.check_exponent(exponent)
        halves = scaled_halves.read(body[_HEAD.size :])
        positions = distinct_positions(seed, halves.size, layout.size)
        factor = layout.size / halves.size if self.unbiased else 1.0
        return _blocks(positions, halves, exponent, factor)

    def _body_bound(self, layout: Layout) -> int:
        return _HEAD.size + scaled_halves.HALF_BYTES * share_of(layout.size, self.fraction)


def _blocks(
    positions: Positions, halves: scaled_halves.Halves, exponent: int, factor: float
) -> Iterator[Block]:
    for span in spans(0, positions.size):
        yield positions[span], scaled_halves.decode_times(halves[span], exponent, factor)
