"""Levels of a quantizer as one byte each, large ones with bits of their own.

A magnitude below 16 is its own token. Above, each octave ``[2**e, 2**(e + 1))`` has eight tokens
of equal width, and the place within one is written as ``e - 3`` bits: there the density hardly
changes, so plain bits are as short as any code.
"""

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError

Levels = NDArray[np.int32]
Tokens = NDArray[np.uint8]

#: Levels from here on share tokens.
LARGE = 16
#: The largest level is below ``2**LEVEL_BITS``.
LEVEL_BITS = 21
_SMALL_BITS = 4
_PARTS = 8
_PART_BITS = 3
TOKENS = LARGE + _PARTS * (LEVEL_BITS - _SMALL_BITS)
_BYTE_BITS = 8

_numbers = np.arange(TOKENS - LARGE)
#: How many bits each token is followed by, and the first level that it stands for.
EXTRA_BITS = np.concatenate((np.zeros(LARGE, np.int32), _numbers // _PARTS + 1)).astype(np.int32)
_FIRST = np.concatenate(
    (np.arange(LARGE), (_PARTS + _numbers % _PARTS) << (_numbers // _PARTS + 1))
).astype(np.int32)


def tokens_of(levels: Levels) -> Tokens:
    """Return the token of each level, 0 to ``2**LEVEL_BITS - 1``."""
    tokens = levels.astype(np.uint8)
    if levels.max(initial=0) >= LARGE:
        large = np.flatnonzero(levels >= LARGE)
        shift = np.frexp(levels[large].astype(np.float64))[1] - (_PART_BITS + 1)
        tokens[large] = LARGE + _PARTS * (shift - 1) + (levels[large] >> shift) - _PARTS
    return tokens


def pack_extra(levels: Levels, tokens: Tokens) -> bytes:
    """Return the bits of large levels: plane j holds bit j of all that have one."""
    if tokens.max(initial=0) < LARGE:
        return b""
    large = tokens >= LARGE
    bits = EXTRA_BITS[tokens[large]]
    rest = levels[large] - _FIRST[tokens[large]]
    return b"".join(
        np.packbits((rest[bits > bit] >> bit) & 1, bitorder="little").tobytes()
        for bit in range(int(bits.max(initial=0)))
    )


def extra_bytes(tokens: Tokens) -> int:
    """Return how many bytes ``pack_extra`` gives for some tokens."""
    numbers = np.bincount(EXTRA_BITS[tokens[tokens >= LARGE]], minlength=1)
    with_bit = np.cumsum(numbers[::-1])[::-1][1:]
    return int(((with_bit + _BYTE_BITS - 1) // _BYTE_BITS).sum())


def levels_of(tokens: Tokens, extra: memoryview) -> Levels:
    """Return the levels of tokens, each below ``TOKENS``, and of their ``extra_bytes``."""
    levels = _FIRST[tokens]
    bits, start = EXTRA_BITS[tokens], 0
    for bit in range(int(bits.max(initial=0))):
        have = np.flatnonzero(bits > bit)
        stop = start + (have.size + _BYTE_BITS - 1) // _BYTE_BITS
        plane = np.frombuffer(extra[start:stop], dtype=np.uint8)
        ones = np.unpackbits(plane, count=have.size, bitorder="little")
        levels[have] += ones.astype(np.int32) << bit
        start = stop
    return levels


def check_tokens(symbols: Tokens, first: int) -> None:
    """Refuse symbols that are no tokens once ``first`` is added.

    Raises:
        PayloadError: One is too large.
    """
    if int(symbols.max()) + first >= TOKENS:
        message = f"update: token {int(symbols.max()) + first}, tokens are below {TOKENS}"
        raise PayloadError(message)
