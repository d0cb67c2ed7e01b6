"""The K largest values and where they are.

Sources: Aji, Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017,
https://arxiv.org/abs/1704.05021; coded gaps after Sattler, Wiedemann, Mueller, Samek, "Robust and
Communication-Efficient Federated Learning from Non-IID Data", IEEE TNNLS 2019,
https://arxiv.org/abs/1903.02891.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from schemas.errors import PayloadError
from updates.arrays import F32, spans
from updates.codecs import rice, scaled_halves
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.scaled_halves import HALF_BYTES
from updates.codecs.selection import largest_positions
from updates.codecs.sparse_parameters import check_fraction, share_of
from updates.layout import Layout

_HEAD = struct.Struct("<IhBx")


@dataclass(frozen=True, slots=True)
class TopKCodec(Codec):
    """The ``K = ceil(fraction * n)`` values of largest magnitude over the flat vector.

    Among equal magnitudes the first in canonical order are kept; the others decode to zero.

    Wire layout of the body: K (u32 LE), exponent e (i16 LE), Rice parameter r (u8), a zero byte;
    K float16 LE, each a kept value times ``2**(15 - e)``; the positions as ``rice`` describes.
    About ``16 + 8.1`` bits a kept value at 1 %, 0.24 bits a value of the vector.

    Biased: the squared error is the energy of what is dropped, at most ``(1 - K/n) ||x||**2``,
    plus ``2**-11`` relative for each kept value above ``2**-28`` of the largest. It converges
    well only where the sender adds what was dropped to its next update (error feedback).

    Attributes:
        fraction: Share of the values that is kept, above 0 and up to 1.
    """

    codec_id: ClassVar[str] = "topk"
    number: ClassVar[int] = 4

    fraction: float = 0.01

    def __post_init__(self) -> None:
        """Check the fraction."""
        check_fraction(self.fraction)

    def kept(self, layout: Layout) -> int:
        """Return K, how many values of the layout are kept; at least 1."""
        return share_of(layout.size, self.fraction)

    @property
    def is_biased(self) -> bool:
        """All but K values are dropped."""
        return True

    @property
    def feedback(self) -> Feedback:
        """What is dropped must not be lost."""
        return "required"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del rng
        positions = largest_positions(vector, self.kept(layout))
        exponent, halves = scaled_halves.encode(vector[positions])
        parameter = rice.best_parameter(positions.size, layout.size)
        head = _HEAD.pack(positions.size, exponent, parameter)
        return (head, halves.data, rice.encode_positions(positions, parameter))

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        kept = self.kept(layout)
        start = _HEAD.size + HALF_BYTES * kept
        exponent, parameter = _read_head(body, kept, start)
        halves = scaled_halves.read(body[_HEAD.size : start])
        positions = rice.decode_positions(body[start:], kept, layout.size, parameter)
        return _blocks(positions, halves, exponent)

    def _body_bound(self, layout: Layout) -> int:
        kept = self.kept(layout)
        parameter = rice.best_parameter(kept, layout.size)
        positions = rice.size_bound(kept, layout.size, parameter)
        return _HEAD.size + HALF_BYTES * kept + positions


def _read_head(body: memoryview, kept: int, least: int) -> tuple[int, int]:
    if len(body) < least:
        message = f"update: {len(body)} bytes of body, at least {least} are needed"
        raise PayloadError(message)
    count, exponent, parameter = _HEAD.unpack_from(body)
    if count != kept:
        message = f"update: {count} values kept, this codec keeps {kept}"
        raise PayloadError(message)
    scaled_halves.check_exponent(exponent)
    return exponent, parameter


def _blocks(
    positions: rice.Positions, halves: scaled_halves.Halves, exponent: int
) -> Iterator[Block]:
    for span in spans(0, positions.size):
        yield positions[span], scaled_halves.decode(halves[span], exponent)
