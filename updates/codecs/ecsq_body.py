"""The body of an ``ecsq`` payload: levels of the values, in whichever of two forms is shorter.

==========  ========  =====================================================================
bytes       type      field
==========  ========  =====================================================================
0-3         u32 LE    K, how many levels are not zero; with 0 the body ends at byte 16
4-5         i16 LE    exponent e: values are divided by ``2**e``, the largest lies in [0.5, 1)
6           u8        form: Rice parameter of the positions, or 255 if all levels are coded
7           u8        zero
8-11        f32 LE    step
12-15       u32 LE    length of the code of tokens
16-         bytes     ``rans`` code of K tokens less 1, or of n tokens; lanes carry plain bits
then        f16 LE    centroids of the levels 1 to 8 in steps, up to the largest token in the code
then        bytes     plain bits that the lanes do not carry: K signs (1: negative), bits of large
                      levels; both from the least significant, ``ecsq_tokens`` has the rest
then        bytes     positions of the K levels as ``rice`` describes them, if not all are coded
==========  ========  =====================================================================
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError
from updates.arrays import F32
from updates.codecs import rans, rice, scaled_halves
from updates.codecs.ecsq_tokens import (
    EXTRA_BITS,
    LARGE,
    Levels,
    Tokens,
    check_tokens,
    extra_bytes,
    levels_of,
    pack_extra,
    tokens_of,
)

HEAD = struct.Struct("<IhBxfI")
#: Levels whose decoded value is the mean of what they stand for.
CENTROIDS = 8
_ALL_CODED = 255
#: A form that takes this much more is preferred if it is the faster one: positions apart.
_WORTH = 1.01
#: With more levels that are not zero their positions are not worth a try.
_MOST_APART = 0.25
_BYTE_BITS = 8
_SIGN_BIT = np.uint32(31)
_MAX_STEP, _MAX_CENTROID = 2.0, 16.0
#: No scaled value decodes to 1, so none overflows.
_BELOW_ONE = np.float32(1 - 2.0**-24)


@dataclass(frozen=True, slots=True)
class Opened:
    """The values of a checked body.

    Attributes:
        values: Those that are not zero, in their order.
        positions: Where they belong; None if all values are coded.
        is_zero: Of all values, whether each is zero; None if positions are given.
    """

    values: F32
    positions: rice.Positions | None
    is_zero: NDArray[np.bool_] | None


def write(levels: Levels, scaled: F32, exponent: int, step: float) -> bytes:
    """Return the body of a vector.

    Args:
        levels: Magnitudes in steps, shape ``(n,)``.
        scaled: The vector times ``2**-exponent``, with its signs.
        exponent: Of the largest magnitude.
        step: Of the quantizer, in scaled values.
    """
    symbols = tokens_of(levels)
    # Of truths they are found in a third of the time.
    positions = np.flatnonzero(symbols != 0).astype(np.int64, copy=False)
    if positions.size == 0:
        return HEAD.pack(0, 0, _ALL_CODED, 0.0, 0)
    tokens, values = symbols.take(positions), scaled.take(positions)
    plain = np.packbits(values < 0, bitorder="little").tobytes() + pack_extra(levels, symbols)
    form, places = _form(levels.size, positions, tokens)
    if form != _ALL_CODED:
        symbols = tokens - np.uint8(1)
    counts = rans.count_symbols(symbols)
    around = rans.ideal_bits(counts) / _BYTE_BITS + len(plain) + len(places)
    code, carried = rans.encode(symbols, counts, plain, around)
    head = HEAD.pack(positions.size, exponent, form, step, len(code))
    centroids = _centroids(tokens, np.abs(values, out=values), step)[: int(tokens.max())]
    return b"".join((head, code, centroids.tobytes(), plain[carried:], places))


def _form(size: int, positions: rice.Positions, tokens: Tokens) -> tuple[int, bytes]:
    """Return the form and the code of the positions, if they are apart."""
    if positions.size > _MOST_APART * size:
        return _ALL_CODED, b""
    counts = rans.count_symbols(tokens)
    apart = rans.ideal_bits(counts)
    counts[0] = size - positions.size
    parameter = rice.best_parameter(positions.size, size)
    places = rice.encode_positions(positions, parameter)
    together = _WORTH * rans.ideal_bits(counts) + _BYTE_BITS * rans.least_lanes(size)
    if apart + _BYTE_BITS * len(places) > together:
        return _ALL_CODED, b""
    return parameter, places


def _centroids(tokens: Tokens, magnitudes: F32, step: float) -> NDArray[np.float16]:
    small = np.minimum(tokens, CENTROIDS + 1)
    numbers = np.bincount(small, minlength=CENTROIDS + 2)[1:-1]
    sums = np.bincount(small, weights=magnitudes, minlength=CENTROIDS + 2)[1:-1]
    plain = np.arange(1.0, CENTROIDS + 1)
    return np.where(numbers > 0, sums / np.maximum(numbers, 1) / step, plain).astype("<f2")


def read(body: memoryview, size: int) -> Opened:
    """Return the values in a body of ``size`` values.

    Raises:
        PayloadError: The body is not one that ``write`` gives.
    """
    kept, exponent, form, step, length = _read_head(body, size)
    if kept == 0:
        return Opened(np.zeros(0, np.float32), np.zeros(0, np.int64), None)
    apart, end = form != _ALL_CODED, HEAD.size + length
    decoded = rans.decode(body[HEAD.size : end], kept if apart else size)
    is_zero = None if apart else decoded.symbols == 0
    check_tokens(decoded.symbols, 1 if apart else 0)
    tokens = decoded.symbols + np.uint8(1) if is_zero is None else decoded.symbols[~is_zero]
    if tokens.size != kept:
        message = f"update: {tokens.size} levels are not zero, the head says {kept}"
        raise PayloadError(message)
    number = min(CENTROIDS, decoded.alphabet - (0 if apart else 1))
    centroids = _read_centroids(body[end:], number)
    plain, rest = _read_plain(body[end + centroids.nbytes :], tokens, decoded.ballast)
    values = _values(tokens, plain, centroids, step, exponent)
    if apart:
        return Opened(values, rice.decode_positions(rest, kept, size, form), None)
    if rest:
        message = f"update: {len(rest)} bytes after the last bit"
        raise PayloadError(message)
    return Opened(values, None, is_zero)


def _read_head(body: memoryview, size: int) -> tuple[int, int, int, float, int]:
    if len(body) < HEAD.size:
        message = f"update: {len(body)} bytes of body, at least {HEAD.size} are needed"
        raise PayloadError(message)
    kept, exponent, form, step, length = HEAD.unpack_from(body)
    if kept == 0 and bytes(body) != HEAD.pack(0, 0, _ALL_CODED, 0.0, 0):
        message = "update: more than a head, or a head that is not empty, for no levels"
        raise PayloadError(message)
    if kept > size:
        message = f"update: {kept} levels that are not zero, there are {size} values"
        raise PayloadError(message)
    scaled_halves.check_exponent(exponent)
    if kept > 0 and not 0 < step < _MAX_STEP:
        message = f"update: step {step}, it must be above 0 and below {_MAX_STEP}"
        raise PayloadError(message)
    if length > len(body) - HEAD.size:
        message = f"update: {length} bytes of code, {len(body) - HEAD.size} are there"
        raise PayloadError(message)
    return kept, exponent, form, step, length


def _read_centroids(octets: memoryview, number: int) -> NDArray[np.float16]:
    if len(octets) < scaled_halves.HALF_BYTES * number:
        message = f"update: {len(octets)} bytes, {number} centroids of 2 are expected"
        raise PayloadError(message)
    centroids = np.frombuffer(octets, dtype="<f2", count=number)
    if not np.all((centroids > 0) & (centroids < _MAX_CENTROID)):
        message = f"update: a centroid is not above 0 and below {_MAX_CENTROID}"
        raise PayloadError(message)
    return centroids


def _read_plain(
    octets: memoryview, tokens: Tokens, ballast: bytes
) -> tuple[memoryview, memoryview]:
    """Return the plain bits and what follows them."""
    length = (tokens.size + _BYTE_BITS - 1) // _BYTE_BITS + extra_bytes(tokens)
    missing = max(0, length - len(ballast))
    if len(octets) < missing:
        message = f"update: {len(octets)} bytes, {missing} of signs and large levels are expected"
        raise PayloadError(message)
    return memoryview((ballast + bytes(octets[:missing]))[:length]), octets[missing:]


def _values(
    tokens: Tokens,
    plain: memoryview,
    centroids: NDArray[np.float16],
    step: float,
    exponent: int,
) -> F32:
    signs = (tokens.size + _BYTE_BITS - 1) // _BYTE_BITS
    packed = np.frombuffer(plain[:signs], dtype=np.uint8)
    negative = np.unpackbits(packed, count=tokens.size, bitorder="little")
    by_token = np.arange(1 + EXTRA_BITS.size, dtype=np.float32)
    by_token[1 : 1 + centroids.size] = centroids
    values = by_token.take(tokens)
    large = np.flatnonzero(tokens >= LARGE)
    values[large] = levels_of(tokens[large], plain[signs:])
    values *= np.float32(step)
    np.minimum(values, _BELOW_ONE, out=values)
    values.view(np.uint32)[...] |= negative.astype(np.uint32) << _SIGN_BIT
    return scaled_halves.times_power_of_two(values, exponent)
