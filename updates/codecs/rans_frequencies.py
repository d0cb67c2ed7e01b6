"""The frequencies of symbols: whole numbers that sum to ``2**14``, and their bytes.

Wire layout: the alphabet's size - 1 (u8), then each frequency as LEB128 of one to three bytes.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError

TOTAL_BITS = 14
TOTAL = 1 << TOTAL_BITS

Frequencies = NDArray[np.uint32]

_LEB_BITS = 7
_LEB_MORE = 0x80
_LEB_BYTES = 3
#: A sum of 2**14 leaves at most one frequency of three bytes.
MAX_FREQUENCIES_BYTES = 1 + 2 * 256 + 1


def quantize(counts: NDArray[np.integer]) -> Frequencies:
    """Return frequencies in proportion to counts, at least 1 for each symbol that occurs.

    What rounding leaves over goes to the most frequent symbol, which has more than that.

    Args:
        counts: How often each of at most 256 symbols occurs; below ``2**48``, not all 0.
    """
    exact = counts.astype(np.int64)
    total = int(exact.sum())
    rounded = (2 * TOTAL * exact + total) // (2 * total)
    rounded[(exact > 0) & (rounded == 0)] = 1
    rounded[int(np.argmax(rounded))] += TOTAL - int(rounded.sum())
    return rounded.astype(np.uint32)


def pack(frequencies: Frequencies) -> bytes:
    """Return the bytes of the frequencies of 1 to 256 symbols."""
    packed = bytearray((frequencies.size - 1,))
    for value in frequencies.tolist():
        rest = value
        while rest >= _LEB_MORE:
            packed.append(rest % _LEB_MORE | _LEB_MORE)
            rest >>= _LEB_BITS
        packed.append(rest)
    return bytes(packed)


def unpack(code: memoryview) -> tuple[Frequencies, int]:
    """Return the frequencies at the beginning of a code, and how many bytes they take.

    Raises:
        PayloadError: The code ends within them, or they do not sum to ``2**14``.
    """
    frequencies, position = [], 1
    for _ in range(code[0] + 1):
        value, position = _number(code, position)
        frequencies.append(value)
    if sum(frequencies) != TOTAL:
        message = f"symbols: frequencies sum to {sum(frequencies)}, they must sum to {TOTAL}"
        raise PayloadError(message)
    return np.array(frequencies, dtype=np.uint32), position


def _number(code: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for place, octet in enumerate(code[position : position + _LEB_BYTES]):
        value |= (octet & ~_LEB_MORE) << (_LEB_BITS * place)
        if not octet & _LEB_MORE:
            return value, position + place + 1
    message = "symbols: the code ends within a frequency, or a frequency is too long"
    raise PayloadError(message)
