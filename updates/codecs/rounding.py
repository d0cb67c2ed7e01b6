"""From values in units of a quantizer's step to codes: nearest, or up or down at random.

A code is ``floor(steps + zero + u)``. With ``u = 1/2`` it is the nearest level; with u uniform on
the 65536 midpoints of [0, 1) its mean is ``steps + zero`` up to ``2**-16``. Nothing is clipped: a
value on the outermost level stays there for every u, since ``254 + 2**-17`` and ``255 + 2**-17``
round to even in float32 and u adds less than 1 exactly.
"""

import numpy as np

from updates.arrays import F32
from updates.codecs.bits import U8

_NOISE_STEPS = 1 << 16
_WORD_LANES = 4
#: Half of a step of the noise: moves it to the midpoints.
MIDPOINT = 0.5 / _NOISE_STEPS


def nearest(steps: F32, zero: float) -> U8:
    """Return the nearest codes; ``steps`` is spoilt.

    Args:
        steps: Values in steps, with ``0 <= steps + zero <= 255``.
        zero: Code of the value zero, or the half between two codes.
    """
    steps += np.float32(zero + 0.5)
    return _truncated(steps)


def stochastic(steps: F32, zero: float, rng: np.random.Generator) -> U8:
    """Return a neighbouring code for each value, right on the mean; ``steps`` is spoilt."""
    steps += np.float32(zero + MIDPOINT)
    steps += uniforms(rng, steps.size)
    return _truncated(steps)


def uniforms(rng: np.random.Generator, count: int) -> F32:
    """Return multiples of ``2**-16`` in [0, 1): four of each 64-bit word of the generator."""
    words = rng.integers(
        0, 1 << 64, size=(count + _WORD_LANES - 1) // _WORD_LANES, dtype=np.uint64
    )
    lanes = words.astype("<u8", copy=False).view("<u2")[:count].astype(np.float32)
    lanes *= np.float32(1 / _NOISE_STEPS)
    return lanes


def _truncated(steps: F32) -> U8:
    codes = np.empty(steps.size, dtype=np.uint8)
    np.copyto(codes, steps, casting="unsafe")
    return codes
