"""The steps of all lanes of a range coder at once: see ``rans`` for what they are.

A state lies in ``[2**16, 2**32)`` between steps. Encoding symbol s with frequency f and the sum c
of the frequencies before it: while the state is ``2**18 * f`` or more its low 16 bits become a
word; then ``state = (state // f) * 2**14 + state % f + c``. Decoding undoes it, and a state that
falls below ``2**16`` takes the next word. A lane begins, and decoded it ends, at ``2**16`` plus 16
bits of the caller's.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError
from updates.arrays import BLOCK_VALUES
from updates.codecs.rans_frequencies import TOTAL, TOTAL_BITS, Frequencies

U8: TypeAlias = NDArray[np.uint8]
U16: TypeAlias = NDArray[np.uint16]
U32: TypeAlias = NDArray[np.uint32]

STATE_FLOOR = 1 << 16
_WORD_BITS = np.uint32(16)
_SPILL_BITS = np.uint32(32 - TOTAL_BITS)
_SLOT_BITS = np.uint32(TOTAL_BITS)
_SLOT_MASK = np.uint32(TOTAL - 1)
_BIAS_BITS = np.uint32(16)
_LOW_HALF = np.uint32(0xFFFF)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Arrays of one length for the steps of a chunk, used again for the next.

    Attributes:
        frequency: Of each symbol.
        start: Sum of the frequencies before it.
        lift: ``2**14 - frequency``.
        most: The largest state that takes the symbol without a word.
        low: Low half of the state before each step.
        spilled: Whether it became a word.
    """

    frequency: U32
    start: U32
    lift: U32
    most: U32
    low: U16
    spilled: NDArray[np.bool_]

    @classmethod
    def of(cls, size: int) -> "_Chunk":
        """Return arrays of some length."""
        frequency, start, lift, most = np.empty((4, size), dtype=np.uint32)
        low, spilled = np.empty(size, dtype=np.uint16), np.empty(size, dtype=bool)
        return cls(frequency, start, lift, most, low, spilled)

    def load(self, symbols: U8, frequencies: Frequencies, starts: U32) -> "_Chunk":
        """Return the first entries, filled for some symbols."""
        size = symbols.size
        frequency, start = self.frequency[:size], self.start[:size]
        frequencies.take(symbols, out=frequency, mode="clip")
        starts.take(symbols, out=start, mode="clip")
        lift = np.subtract(np.uint32(TOTAL), frequency, out=self.lift[:size])
        most = np.left_shift(frequency, _SPILL_BITS, out=self.most[:size])
        most -= np.uint32(1)  # of 2**32, which is 0 here, too
        return _Chunk(frequency, start, lift, most, self.low[:size], self.spilled[:size])


def encode_rows(symbols: U8, frequencies: Frequencies, states: U32) -> U16:
    """Return the words in the order in which they are read; take the states from first to last."""
    lanes = states.size
    at_once = lanes * max(1, BLOCK_VALUES // lanes)
    starts = np.cumsum(frequencies, dtype=np.uint32) - frequencies
    chunk, parts = _Chunk.of(min(at_once, symbols.size)), []
    for first in reversed(range(0, symbols.size, at_once)):
        loaded = chunk.load(symbols[first : first + at_once], frequencies, starts)
        parts.append(_encode_chunk(loaded, states))
    return np.concatenate(parts[::-1])


def _encode_chunk(chunk: _Chunk, states: U32) -> U16:
    """Code the steps of one chunk, the last first; change the states, return the words."""
    lanes, size = states.size, chunk.low.size
    scratch, shift = np.empty_like(states), np.empty(lanes, dtype=np.uint8)
    for begin in reversed(range(0, size, lanes)):
        step = slice(begin, min(begin + lanes, size))
        many = step.stop - begin
        now, spare, over, by = states[:many], scratch[:many], chunk.spilled[step], shift[:many]
        np.greater(now, chunk.most[step], out=over)
        chunk.low[step] = now
        np.left_shift(over.view(np.uint8), 4, out=by)
        np.right_shift(now, by, out=now)
        np.floor_divide(now, chunk.frequency[step], out=spare)
        np.multiply(spare, chunk.lift[step], out=spare)
        np.add(now, spare, out=now)
        np.add(now, chunk.start[step], out=now)
    return chunk.low[chunk.spilled]


def decode_rows(states: U32, words: U16, frequencies: Frequencies, count: int) -> U8:
    """Return ``count`` symbols; take the states from the sent ones to those of the beginning.

    Raises:
        PayloadError: Words are missing or left over, or a lane does not end as it began.
    """
    symbol_of = np.repeat(np.arange(frequencies.size, dtype=np.uint8), frequencies)
    starts = np.cumsum(frequencies, dtype=np.uint32) - frequencies
    bias = np.arange(TOTAL, dtype=np.uint32) - np.repeat(starts, frequencies)
    table = (np.repeat(frequencies, frequencies) << _BIAS_BITS) | bias
    symbols = np.empty(count, dtype=np.uint8)
    read = 0
    for begin in range(0, count, states.size):
        step = symbols[begin : begin + states.size]
        read += _decode_step(states[: step.size], words[read:], table, symbol_of, step)
    if read != words.size or np.any(states >> _WORD_BITS != 1):
        message = f"symbols: {words.size} words, {read} were read, or a lane has not ended"
        raise PayloadError(message)
    return symbols


def _decode_step(states: U32, words: U16, table: U32, symbol_of: U8, out: U8) -> int:
    """Decode one symbol of each lane, change the states, return the number of words read."""
    slots = states & _SLOT_MASK
    symbol_of.take(slots, out=out, mode="clip")
    entries = table.take(slots, mode="clip")
    states >>= _SLOT_BITS
    states *= entries >> _BIAS_BITS
    entries &= _LOW_HALF
    states += entries
    (low,) = (states < STATE_FLOOR).nonzero()  # half the time of flatnonzero
    if low.size > words.size:
        message = f"symbols: {words.size} words left where {low.size} are needed"
        raise PayloadError(message)
    states[low] = (states[low] << _WORD_BITS) | words[: low.size]
    return int(low.size)
