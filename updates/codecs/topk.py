"""The K largest values and where they are.

Sources: Aji, Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017,
https://arxiv.org/abs/1704.05021; coded gaps after Sattler, Wiedemann, Mueller, Samek, "Robust and
Communication-Efficient Federated Learning from Non-IID Data", IEEE TNNLS 2019,
https://arxiv.org/abs/1903.02891.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from schemas.errors import PayloadError
from updates.arrays import F32, peak, spans
from updates.codecs import rice
from updates.codecs.base import Block, Codec, Feedback
from updates.errors import CodecParameterError
from updates.layout import Layout

_HEAD = struct.Struct("<IhBx")
_HALF_BYTES = 2
#: Kept values are scaled by a power of two so that the largest lies in [2**14, 2**15).
_TOP_EXPONENT = 15
_MAX_SCALED = 32752.0
_MAX_SCALED_BITS = 0x77FF
_MAGNITUDE_BITS = 0x7FFF
#: ``frexp`` of the smallest and of the largest float32.
_MIN_EXPONENT, _MAX_EXPONENT = -148, 128


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
        value: object = self.fraction
        if type(value) not in (int, float) or not 0 < self.fraction <= 1:
            raise CodecParameterError(
                field="fraction", value=value, limit="must be a number above 0 and up to 1"
            )

    def kept(self, layout: Layout) -> int:
        """Return K, how many values of the layout are kept; at least 1."""
        return min(layout.size, math.ceil(self.fraction * layout.size))

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
        exponent = math.frexp(peak(vector))[1]
        scaled = np.ldexp(vector[positions], _TOP_EXPONENT - exponent)
        halves = np.clip(scaled, -_MAX_SCALED, _MAX_SCALED).astype("<f2")
        parameter = rice.best_parameter(positions.size, layout.size)
        head = _HEAD.pack(positions.size, exponent, parameter)
        return (head, halves.data, rice.encode_positions(positions, parameter))

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        kept = self.kept(layout)
        start = _HEAD.size + _HALF_BYTES * kept
        exponent, parameter = _read_head(body, kept, start)
        bits = np.frombuffer(body[_HEAD.size : start], dtype="<u2")
        if (bits & _MAGNITUDE_BITS).max() > _MAX_SCALED_BITS:
            message = f"update: a kept value is not finite, or above {_MAX_SCALED} as scaled"
            raise PayloadError(message)
        positions = rice.decode_positions(body[start:], kept, layout.size, parameter)
        return _blocks(positions, bits.view("<f2"), exponent - _TOP_EXPONENT)

    def _body_bound(self, layout: Layout) -> int:
        kept = self.kept(layout)
        parameter = rice.best_parameter(kept, layout.size)
        positions = rice.size_bound(kept, layout.size, parameter)
        return _HEAD.size + _HALF_BYTES * kept + positions


def largest_positions(vector: F32, count: int) -> rice.Positions:
    """Return the ascending positions of the ``count`` largest magnitudes, 1 <= count <= n."""
    magnitudes = np.abs(vector).view(np.int32)  # IEEE 754: magnitudes order as their bits do
    threshold = np.partition(magnitudes, -count)[-count]
    above = np.flatnonzero(magnitudes > threshold)
    ties = np.flatnonzero(magnitudes == threshold)[: count - above.size]
    return np.sort(np.concatenate((above, ties))).astype(np.int64, copy=False)


def _read_head(body: memoryview, kept: int, least: int) -> tuple[int, int]:
    if len(body) < least:
        message = f"update: {len(body)} bytes of body, at least {least} are needed"
        raise PayloadError(message)
    count, exponent, parameter = _HEAD.unpack_from(body)
    if count != kept:
        message = f"update: {count} values kept, this codec keeps {kept}"
        raise PayloadError(message)
    if not _MIN_EXPONENT <= exponent <= _MAX_EXPONENT:
        message = f"update: exponent {exponent}, {_MIN_EXPONENT} to {_MAX_EXPONENT} are possible"
        raise PayloadError(message)
    return exponent, parameter


def _blocks(
    positions: rice.Positions, halves: NDArray[np.float16], exponent: int
) -> Iterator[Block]:
    for span in spans(0, positions.size):
        yield positions[span], np.ldexp(halves[span].astype(np.float32), exponent)
