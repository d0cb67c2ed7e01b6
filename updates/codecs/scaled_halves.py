"""Values as float16 under one power of two, so that neither range nor subnormals are lost.

The scale ``2**(15 - e)``, with e the binary exponent of the largest magnitude, puts that magnitude
in [2**14, 2**15). The error of a value is at most ``2**-11`` of it down to ``2**-28`` of the
largest, below that at most ``2**-39`` of the largest.
"""

import math

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError
from updates.arrays import F32, peak

Halves = NDArray[np.float16]

HALF_BYTES = 2
_TOP_EXPONENT = 15
_MAX_SCALED = 32752.0
_MAX_SCALED_BITS = 0x77FF
_MAGNITUDE_BITS = 0x7FFF
#: ``frexp`` of the smallest and of the largest float32.
_MIN_EXPONENT, _MAX_EXPONENT = -148, 128
_PLAIN_EXPONENT = 120
_MAX_F32 = float(np.finfo(np.float32).max)


def encode(values: F32) -> tuple[int, Halves]:
    """Return the exponent and the scaled values of a non-empty vector."""
    exponent = math.frexp(peak(values))[1]
    scaled = np.ldexp(values, _TOP_EXPONENT - exponent)
    return exponent, np.clip(scaled, -_MAX_SCALED, _MAX_SCALED).astype("<f2")


def check_exponent(exponent: int) -> None:
    """Refuse an exponent that no float32 has.

    Raises:
        PayloadError: It is out of range.
    """
    if not _MIN_EXPONENT <= exponent <= _MAX_EXPONENT:
        message = f"update: exponent {exponent}, {_MIN_EXPONENT} to {_MAX_EXPONENT} are possible"
        raise PayloadError(message)


def read(octets: memoryview) -> Halves:
    """Return the scaled values in some bytes, an even number of them and not none.

    Raises:
        PayloadError: A value is not finite or larger than any that is sent.
    """
    bits = np.frombuffer(octets, dtype="<u2")
    if (bits & _MAGNITUDE_BITS).max() > _MAX_SCALED_BITS:
        message = f"update: a kept value is not finite, or above {_MAX_SCALED} as scaled"
        raise PayloadError(message)
    return bits.view("<f2")


def decode(halves: Halves, exponent: int) -> F32:
    """Return the values; all are finite."""
    return np.ldexp(halves.astype(np.float32), exponent - _TOP_EXPONENT)


def decode_times(halves: Halves, exponent: int, factor: float) -> F32:
    """Return the values times a factor; those beyond the largest float32 are clipped to it."""
    values = np.ldexp(halves.astype(np.float64), exponent - _TOP_EXPONENT)
    values *= factor
    return np.clip(values, -_MAX_F32, _MAX_F32).astype(np.float32)


def times_power_of_two(vector: F32, exponent: int) -> F32:
    """Return a vector times ``2**exponent``; in two steps where one factor could overflow."""
    if abs(exponent) <= _PLAIN_EXPONENT:
        whole: F32 = vector * np.float32(math.ldexp(1, exponent))
        return whole
    half = exponent // 2
    scaled: F32 = vector * np.float32(math.ldexp(1, half))
    scaled *= np.float32(math.ldexp(1, exponent - half))
    return scaled
