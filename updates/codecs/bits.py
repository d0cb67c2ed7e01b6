"""Codes of 1 to 8 bits, packed least significant bit first.

Code ``i`` takes the bits ``i * bits`` to ``(i + 1) * bits - 1`` of the string in which bit ``j``
is bit ``j % 8`` of byte ``j // 8``; what is left of the last byte is zero. Eight codes fill
``bits`` bytes, so a block of ``BLOCK_VALUES`` codes begins and ends on a byte.

Widths without a shape of their own in numpy go through 64-bit words that hold eight codes: three
steps join neighbours to pairs, pairs to fours and fours to eights (and back).
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError
from updates.arrays import spans

#: Codes or packed bytes.
U8: TypeAlias = NDArray[np.uint8]

_BYTE_BITS = 8
_HALF_BITS = 4
_QUARTER_BITS = 2
_WORD_CODES = 8


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes ``count`` codes of ``bits`` bits take."""
    return (count * bits + _BYTE_BITS - 1) // _BYTE_BITS


def pack(codes: U8, bits: int) -> U8:
    """Return the codes packed.

    Args:
        codes: Shape ``(count,)``, each below ``2**bits``.
        bits: 1 to 8.
    """
    if bits == _BYTE_BITS:
        return codes
    if bits == 1:
        return np.packbits(codes, bitorder="little")
    whole = _padded(codes)
    if bits == _HALF_BITS:
        packed = _pack_halves(whole)
    elif bits == _QUARTER_BITS:
        packed = _pack_quarters(whole)
    else:
        packed = _pack_words(whole, bits)
    return packed[: packed_bytes(codes.size, bits)]


def unpack(packed: U8, count: int, bits: int) -> U8:
    """Return ``count`` codes; what ``pack`` made of them is ``packed``."""
    if bits == _BYTE_BITS:
        return packed
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little")
    if bits == _HALF_BITS:
        return _unpack_halves(packed)[:count]
    if bits == _QUARTER_BITS:
        return _unpack_quarters(packed)[:count]
    return _unpack_words(packed, count, bits)[:count]


def unpack_span(packed: U8, span: slice, bits: int) -> U8:
    """Return the codes of one block of ``spans(0, count)``."""
    start = packed_bytes(span.start, bits)
    stop = packed_bytes(span.stop, bits)
    return unpack(packed[start:stop], span.stop - span.start, bits)


def check(packed: U8, count: int, bits: int, levels: int) -> None:
    """Refuse codes that are not below ``levels``, and padding that is not zero.

    Args:
        packed: ``packed_bytes(count, bits)`` bytes as received.
        count: Number of codes, at least 1.
        bits: 1 to 8.
        levels: How many codes have a meaning, up to ``2**bits``.

    Raises:
        PayloadError: A code or the padding is not one that a sender writes.
    """
    used = count * bits - _BYTE_BITS * (packed.size - 1)
    if int(packed[-1]) >> used:
        message = f"update: the {_BYTE_BITS - used} bits after the last code are not zero"
        raise PayloadError(message)
    if levels == 1 << bits:
        return
    for span in spans(0, count):
        largest = _largest(packed, span, bits)
        if largest >= levels:
            message = (
                f"update: code {largest} in {span.start}..{span.stop - 1}, limit {levels - 1}"
            )
            raise PayloadError(message)


def _largest(packed: U8, span: slice, bits: int) -> int:
    if bits not in (_QUARTER_BITS, _HALF_BITS):
        return int(unpack_span(packed, span, bits).max())
    octets = packed[packed_bytes(span.start, bits) : packed_bytes(span.stop, bits)]
    mask, lanes = (1 << bits) - 1, range(0, _BYTE_BITS, bits)
    return max(int((octets & np.uint8(mask << lane)).max()) >> lane for lane in lanes)


def _padded(codes: U8) -> U8:
    missing = -codes.size % _WORD_CODES
    return np.pad(codes, (0, missing)) if missing else np.ascontiguousarray(codes)


def _pack_halves(codes: U8) -> U8:
    pairs = codes.view("<u2")
    packed: U8 = (pairs | (pairs >> _HALF_BITS)).astype(np.uint8)
    return packed


def _unpack_halves(packed: U8) -> U8:
    pairs = packed.astype("<u2")
    pairs |= pairs << _HALF_BITS
    pairs &= 0x0F0F
    return pairs.view(np.uint8)


def _pack_quarters(codes: U8) -> U8:
    fours = codes.view("<u4")
    pairs = fours | (fours >> 6)
    packed: U8 = (pairs | (pairs >> 12)).astype(np.uint8)
    return packed


def _unpack_quarters(packed: U8) -> U8:
    fours = packed.astype("<u4")
    fours |= fours << 12
    fours &= 0x000F000F
    fours |= fours << 6
    fours &= 0x03030303
    return fours.view(np.uint8)


def _pack_words(codes: U8, bits: int) -> U8:
    words: NDArray[Any] = codes.view("<u8")
    for lane, width in ((16, bits), (32, 2 * bits), (64, 4 * bits)):
        low, high = _masks(lane, width)
        words = (words & low) | ((words & high) >> np.uint64(lane // 2 - width))
    return words.astype("<u8").view(np.uint8).reshape(-1, _WORD_CODES)[:, :bits].reshape(-1)


def _unpack_words(packed: U8, count: int, bits: int) -> U8:
    rows = np.zeros(((count + _WORD_CODES - 1) // _WORD_CODES, _WORD_CODES), dtype=np.uint8)
    whole = packed.size // bits
    rows[:whole, :bits] = packed[: whole * bits].reshape(whole, bits)
    rows[whole:, : packed.size - whole * bits] = packed[whole * bits :]
    words: NDArray[Any] = rows.reshape(-1).view("<u8")
    for lane, width in ((64, 4 * bits), (32, 2 * bits), (16, bits)):
        low, high = _masks(lane, width)
        shift = np.uint64(lane // 2 - width)
        words = (words & low) | ((words << shift) & high)
    return words.astype("<u8").view(np.uint8)


def _masks(lane: int, width: int) -> tuple[np.uint64, np.uint64]:
    """Return the masks of the lower and of the upper field in each lane of a word."""
    field = (1 << width) - 1
    low = sum(field << start for start in range(0, 64, lane))
    return np.uint64(low), np.uint64(low << (lane // 2))
