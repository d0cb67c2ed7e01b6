"""Static entropy coding of small symbols: range asymmetric numeral systems in parallel lanes.

Symbol number i belongs to lane ``i % lanes``; each lane is a coder of its own, all lanes take one
step at once in numpy, and their words go into one stream in the order in which they are read. A
lane's first state has room for two bytes that are no symbols: ``ballast``, of which the caller has
some anyway (signs), so that a lane costs one byte and not three, and there can be many. There is
at least one lane for 1024 symbols: where nearly all are the same one, ``rice`` is shorter.

Wire layout: number of lanes (u16 LE); the frequencies (``rans_frequencies``); for each lane its
state (u32 LE); the words (u16 LE). A symbol takes the logarithm of its frequency.

Sources: Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with
compression rate of arithmetic coding", 2013, https://arxiv.org/abs/1311.2540; Giesen, "Interleaved
entropy coders", 2014, https://arxiv.org/abs/1402.3392.
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError
from updates.codecs.rans_frequencies import MAX_FREQUENCIES_BYTES, pack, quantize, unpack
from updates.codecs.rans_lanes import STATE_FLOOR, decode_rows, encode_rows

Symbols = NDArray[np.uint8]

_LANES = struct.Struct("<H")
_MAX_LANES = (1 << 16) - 1
_ALPHABET = 256
_STATE_BYTES = 4
_WORD_BYTES = 2
#: Ballast that one lane carries.
LANE_BALLAST_BYTES = 2
#: No lane has more symbols, but where there are 2**26: it bounds the steps that a code asks for.
_MAX_ROWS = 1024
_LEAST_ROWS = 16
#: Bytes of payload a lane: its own byte is then below 1 %.
_BYTES_A_LANE = 128
#: Symbols counted at a time, which numpy makes words of 8 bytes for it: small memory is kept.
_COUNTED = 15_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a code held.

    Attributes:
        symbols: Each below ``alphabet``.
        alphabet: Number of frequencies in the code.
        ballast: ``LANE_BALLAST_BYTES`` for each lane.
    """

    symbols: Symbols
    alphabet: int
    ballast: bytes


def count_symbols(symbols: Symbols) -> NDArray[np.int64]:
    """Return how often each symbol occurs, up to the largest; of no symbols nothing."""
    counts = np.zeros(_ALPHABET, dtype=np.int64)
    for begin in range(0, symbols.size, _COUNTED):
        counts += np.bincount(symbols[begin : begin + _COUNTED], minlength=_ALPHABET)
    return np.trim_zeros(counts, "b")


def ideal_bits(counts: NDArray[np.integer]) -> float:
    """Return the entropy of a whole sequence with these counts of its symbols, in bits."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum())


def size_bound(count: int) -> int:
    """Return the length in bytes that no code of ``count`` symbols exceeds."""
    states = _STATE_BYTES * _most_lanes(count)
    return _LANES.size + MAX_FREQUENCIES_BYTES + states + _WORD_BYTES * count


def least_lanes(count: int) -> int:
    """Return how many lanes any code of ``count`` symbols has; each costs about a byte."""
    return min(_MAX_LANES, -(-count // _MAX_ROWS))


def encode(
    symbols: Symbols, counts: NDArray[np.integer], ballast: bytes, payload_bytes: float
) -> tuple[bytes, int]:
    """Return the code of some symbols, and how many bytes of ballast it took.

    Args:
        symbols: At least one.
        counts: How often each symbol occurs, of at most 256.
        ballast: Its first bytes go into the lanes; what is missing there is zero.
        payload_bytes: About how long the payload around the code will be.
    """
    frequencies = quantize(counts)
    wanted = int(payload_bytes / _BYTES_A_LANE)
    lanes = min(max(wanted, least_lanes(symbols.size)), _most_lanes(symbols.size))
    taken = min(len(ballast), LANE_BALLAST_BYTES * lanes)
    carried = ballast[:taken].ljust(LANE_BALLAST_BYTES * lanes, b"\0")
    states = np.frombuffer(carried, dtype="<u2").astype(np.uint32) + np.uint32(STATE_FLOOR)
    words = encode_rows(symbols, frequencies, states)
    head = _LANES.pack(lanes) + pack(frequencies)
    return head + states.astype("<u4").tobytes() + words.astype("<u2").tobytes(), taken


def decode(code: memoryview, count: int) -> Decoded:
    """Return exactly ``count`` symbols, at least 1.

    Raises:
        PayloadError: The code is not that of so many symbols, to its last byte.
    """
    if not _LANES.size < len(code) <= size_bound(count):
        message = f"symbols: {len(code)} bytes, 3 to {size_bound(count)} are possible"
        raise PayloadError(message)
    lanes = _checked_lanes(code, count)
    frequencies, used = unpack(code[_LANES.size :])
    rest = code[_LANES.size + used :]
    if len(rest) < _STATE_BYTES * lanes or len(rest) % _WORD_BYTES:
        message = f"symbols: {len(rest)} bytes for the states of {lanes} lanes and words of 2"
        raise PayloadError(message)
    states = np.frombuffer(rest, dtype="<u4", count=lanes).astype(np.uint32)
    if states.min() < STATE_FLOOR:
        message = f"symbols: a lane's state is {states.min()}, at least {STATE_FLOOR} is possible"
        raise PayloadError(message)
    words = np.frombuffer(rest, dtype="<u2", offset=_STATE_BYTES * lanes).astype(np.uint16)
    symbols = decode_rows(states, words, frequencies, count)
    return Decoded(symbols, frequencies.size, states.astype("<u2").tobytes())


def _most_lanes(count: int) -> int:
    return min(_MAX_LANES, -(-count // _LEAST_ROWS))


def _checked_lanes(code: memoryview, count: int) -> int:
    lanes: int = _LANES.unpack_from(code)[0]
    least, most = least_lanes(count), _most_lanes(count)
    if not least <= lanes <= most:
        message = f"symbols: {lanes} lanes, {least} to {most} are possible"
        raise PayloadError(message)
    return lanes
