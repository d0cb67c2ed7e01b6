"""Ascending positions as Rice-coded gaps, in two streams so that numpy can code them at once.

With parameter r, the gap g to the position before (g = 0 for neighbours) is split into its high
part ``g >> r`` and its r low bits. Layout, bits filled from the least significant:

- r planes of ``ceil(count / 8)`` bytes: plane j holds bit j of every gap;
- the high parts in unary: that many 0 bits and one 1 bit each, padded with 0 bits to a byte.

Source: Rice and Plaunt, "Adaptive Variable-Length Coding for Efficient Compression of Spacecraft
Television Data", IEEE Trans. Commun. 1971; the parameter after Kiely, "Selecting the Golomb
Parameter in Rice Coding", IPN Progress Report 42-159, 2004.
"""

import math

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError

Positions = NDArray[np.int64]

#: No layout has 2**30 values or more, so no gap has more bits.
MAX_PARAMETER = 30
_GOLDEN = (math.sqrt(5) - 1) / 2
_BYTE_BITS = 8


def best_parameter(count: int, limit: int) -> int:
    """Return the parameter for ``count`` positions spread at random below ``limit``."""
    if count >= limit:
        return 0
    ratio = math.log(_GOLDEN) / math.log1p(-count / limit)
    return max(0, 1 + math.floor(math.log2(ratio)))


def size_bound(count: int, limit: int, parameter: int) -> int:
    """Return the size in bytes that no ``count`` positions below ``limit`` exceed."""
    return _planes_bytes(count, parameter) + _bytes(count + ((limit - count) >> parameter))


def encode_positions(positions: Positions, parameter: int) -> bytes:
    """Return the code of ascending positions, each at least 0 and none twice."""
    gaps = np.diff(positions, prepend=-1) - 1
    planes = [_pack((gaps >> bit) & 1) for bit in range(parameter)]
    ends = np.cumsum((gaps >> parameter) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, dtype=np.uint8)
    unary[ends] = 1
    return b"".join((*planes, _pack(unary)))


def decode_positions(code: memoryview, count: int, limit: int, parameter: int) -> Positions:
    """Return ``count`` ascending positions below ``limit``.

    Memory is bounded by ``size_bound``: a longer code is refused before anything is unpacked.

    Raises:
        PayloadError: The code is not that of so many positions below ``limit``.
    """
    if parameter > MAX_PARAMETER:
        message = f"positions: Rice parameter {parameter}, at most {MAX_PARAMETER} is allowed"
        raise PayloadError(message)
    planes_bytes = _planes_bytes(count, parameter)
    bound = size_bound(count, limit, parameter)
    if not planes_bytes < len(code) <= bound:
        message = f"positions: {len(code)} bytes, {planes_bytes + 1} to {bound} are possible"
        raise PayloadError(message)
    gaps = _high_parts(code[planes_bytes:], count) << parameter
    for bit in range(parameter):
        gaps |= _plane(code, bit, count) << bit
    positions = np.cumsum(gaps + 1) - 1
    if positions[-1] >= limit:
        message = f"positions: the last is {positions[-1]}, it must be below {limit}"
        raise PayloadError(message)
    return positions


def _high_parts(unary: memoryview, count: int) -> Positions:
    bits = np.unpackbits(np.frombuffer(unary, dtype=np.uint8), bitorder="little")
    ends = np.flatnonzero(bits).astype(np.int64, copy=False)
    if ends.size != count or _bytes(int(ends[-1]) + 1) != len(unary):
        message = f"positions: {ends.size} in {len(unary)} bytes of unary code, expected {count}"
        raise PayloadError(message)
    return np.diff(ends, prepend=-1) - 1


def _plane(code: memoryview, bit: int, count: int) -> Positions:
    width = _bytes(count)
    plane = np.frombuffer(code[bit * width : (bit + 1) * width], dtype=np.uint8)
    return np.unpackbits(plane, count=count, bitorder="little").astype(np.int64)


def _pack(bits: NDArray[np.integer]) -> bytes:
    return np.packbits(bits.astype(np.uint8, copy=False), bitorder="little").tobytes()


def _planes_bytes(count: int, parameter: int) -> int:
    return parameter * _bytes(count)


def _bytes(bits: int) -> int:
    return (bits + _BYTE_BITS - 1) // _BYTE_BITS
