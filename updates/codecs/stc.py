"""Sparse ternary compression: where the K largest values are, their signs, one magnitude.

Source: Sattler, Wiedemann, Mueller, Samek, "Robust and Communication-Efficient Federated Learning
from Non-IID Data", IEEE TNNLS 2019, https://arxiv.org/abs/1903.02891, algorithms 1 and 3.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from schemas.errors import PayloadError
from updates.arrays import F32, spans
from updates.codecs import rice
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.selection import largest_positions
from updates.codecs.sparse_parameters import check_fraction, share_of
from updates.errors import NonFiniteError
from updates.layout import Layout

_HEAD = struct.Struct("<IfB3x")
_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class StcCodec(Codec):
    """The ``K = ceil(fraction * n)`` largest magnitudes, each as its sign times their mean.

    Among equal magnitudes the first in canonical order are kept; the others decode to zero.

    Wire layout of the body: K (u32 LE), mu (float32 LE, the mean magnitude of those kept), Rice
    parameter (u8), three zero bytes; K sign bits from the least significant, 1 for negative; the
    positions as ``rice`` describes. About ``1 + 8.1`` bits a kept value at 1 %, 0.091 bits a
    value of the vector.

    Biased: the squared error is ``||x||**2 - K * mu**2``, below ``||x||**2`` for any update but
    zero. It converges well only with error feedback, which the paper has at both ends.

    Attributes:
        fraction: Share of the values that is kept, above 0 and up to 1.
    """

    codec_id: ClassVar[str] = "stc"
    number: ClassVar[int] = 19

    fraction: float = 0.02

    def __post_init__(self) -> None:
        """Check the fraction."""
        check_fraction(self.fraction)

    @property
    def is_biased(self) -> bool:
        """All but K values are dropped, and those are levelled."""
        return True

    @property
    def feedback(self) -> Feedback:
        """What is dropped must not be lost."""
        return "required"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del rng
        positions = largest_positions(vector, share_of(layout.size, self.fraction))
        kept = vector[positions]
        mean = float(np.abs(kept).mean(dtype=np.float64))
        parameter = rice.best_parameter(positions.size, layout.size)
        head = _HEAD.pack(positions.size, mean, parameter)
        negative = np.packbits(kept < 0, bitorder="little")
        return (head, negative.data, rice.encode_positions(positions, parameter))

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        kept = share_of(layout.size, self.fraction)
        start = _HEAD.size + _bytes(kept)
        mean, parameter = _read_head(body, kept, start)
        octets = np.frombuffer(body[_HEAD.size : start], dtype=np.uint8)
        negative = np.unpackbits(octets, count=kept, bitorder="little").view(bool)
        positions = rice.decode_positions(body[start:], kept, layout.size, parameter)
        return _blocks(positions, negative, np.float32(mean))

    def _body_bound(self, layout: Layout) -> int:
        kept = share_of(layout.size, self.fraction)
        parameter = rice.best_parameter(kept, layout.size)
        return _HEAD.size + _bytes(kept) + rice.size_bound(kept, layout.size, parameter)


def _read_head(body: memoryview, kept: int, least: int) -> tuple[float, int]:
    if len(body) < least:
        message = f"update: {len(body)} bytes of body, at least {least} are needed"
        raise PayloadError(message)
    count, mean, parameter = _HEAD.unpack_from(body)
    if count != kept:
        message = f"update: {count} values kept, this codec keeps {kept}"
        raise PayloadError(message)
    if not (np.isfinite(mean) and mean >= 0):
        message = f"update: mean magnitude {mean}, it must be finite and at least 0"
        raise NonFiniteError(message)
    return mean, parameter


def _blocks(positions: rice.Positions, negative: NDArray[np.bool_], mean: F32) -> Iterator[Block]:
    for span in spans(0, positions.size):
        yield positions[span], np.where(negative[span], -mean, mean)


def _bytes(bits: int) -> int:
    return (bits + _BYTE_BITS - 1) // _BYTE_BITS
