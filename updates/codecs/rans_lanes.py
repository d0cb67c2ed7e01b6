"""The steps of all lanes of a range coder at once: see ``rans`` for what they are.

A state lies in ``[2**16, 2**32)`` between steps. Encoding symbol s with frequency f and the sum c
of the frequencies before it: while the state is ``2**18 * f`` or more its low 16 bits become a
word; then ``state = (state // f) * 2**14 + state % f + c``. Decoding undoes it, and a state that
falls below ``2**16`` takes the next word. A lane begins, and decoded it ends, at ``2**16`` plus 16
bits of the caller's.
"""

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


def encode_rows(symbols: U8, frequencies: Frequencies, states: U32) -> U16:
    """Return the words in the order in which they are read; take the states from first to last."""
    lanes = states.size
    at_once = lanes * max(1, BLOCK_VALUES // lanes)
    starts = np.cumsum(frequencies, dtype=np.uint32) - frequencies
    parts = []
    for first in reversed(range(0, symbols.size, at_once)):
        chunk = symbols[first : first + at_once]
        parts.append(_encode_chunk(chunk, states, frequencies.take(chunk), starts.take(chunk)))
    return np.concatenate(parts[::-1])


def _encode_chunk(chunk: U8, states: U32, of: U32, start: U32) -> U16:
    """Code the steps of one chunk, the last first; change the states, return the words."""
    lanes = states.size
    low = np.empty(chunk.size, dtype=np.uint16)
    spilled = np.empty(chunk.size, dtype=bool)
    scratch, shift = np.empty_like(states), np.empty(lanes, dtype=np.uint8)
    lift = np.uint32(TOTAL) - of
    for begin in reversed(range(0, chunk.size, lanes)):
        step = slice(begin, begin + lanes)
        frequency = of[step]
        now, spare, over = states[: frequency.size], scratch[: frequency.size], spilled[step]
        np.right_shift(now, _SPILL_BITS, out=spare)
        np.greater_equal(spare, frequency, out=over)
        low[step] = now
        by = shift[: frequency.size]
        np.left_shift(over.view(np.uint8), 4, out=by)
        np.right_shift(now, by, out=now)
        np.floor_divide(now, frequency, out=spare)
        np.multiply(spare, lift[step], out=spare)
        np.add(now, spare, out=now)
        np.add(now, start[step], out=now)
    return low[spilled]


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
