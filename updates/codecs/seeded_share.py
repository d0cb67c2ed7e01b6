"""What codecs have in common that send a share of the values, chosen by a public seed."""

import struct
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, spans
from updates.codecs import scaled_halves
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_flag
from updates.codecs.public_random import draw_seed
from updates.codecs.rice import Positions
from updates.codecs.sparse_parameters import check_fraction
from updates.layout import Layout

_HEAD = struct.Struct("<Qh")


@dataclass(frozen=True, slots=True)
class SeededShareCodec(Codec):
    """Some values as float16; both ends derive which, the others decode to zero.

    Wire layout of the body: seed (u64 LE), exponent e (i16 LE), one float16 LE for each value that
    is sent, each times ``2**(15 - e)``, in the order of the parts.
    """

    fraction: float
    unbiased: bool

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_fraction(self.fraction)
        check_flag("unbiased", self.unbiased)

    @property
    def is_random(self) -> bool:
        """What is sent is."""
        return True

    @property
    def is_biased(self) -> bool:
        """Unless it makes up for the values that are not sent."""
        return not self.unbiased

    @property
    def feedback(self) -> Feedback:
        """Scaled, the error exceeds the update; plain, what is not sent must not be lost."""
        return "forbidden" if self.unbiased else "required"

    @abstractmethod
    def _parts(self, seed: int, layout: Layout) -> Iterator[tuple[Positions, float]]:
        """Yield the positions that are sent, ascending in each part, and their part's factor."""

    @abstractmethod
    def _sent(self, layout: Layout) -> int:
        """Return how many values are sent."""

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        seed = draw_seed(rng)
        sent = np.concatenate([vector[where] for where, _ in self._parts(seed, layout)])
        exponent, halves = scaled_halves.encode(sent)
        return (_HEAD.pack(seed, exponent), halves.data)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        seed, exponent = _HEAD.unpack_from(body)
        scaled_halves.check_exponent(exponent)
        return self._placed(scaled_halves.read(body[_HEAD.size :]), exponent, seed, layout)

    def _body_bound(self, layout: Layout) -> int:
        return _HEAD.size + scaled_halves.HALF_BYTES * self._sent(layout)

    def _placed(
        self, halves: scaled_halves.Halves, exponent: int, seed: int, layout: Layout
    ) -> Iterator[Block]:
        start = 0
        for positions, factor in self._parts(seed, layout):
            part = halves[start : start + positions.size]
            start += positions.size
            for span in spans(0, positions.size):
                yield positions[span], scaled_halves.decode_times(part[span], exponent, factor)
