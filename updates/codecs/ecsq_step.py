"""The step of a uniform quantizer whose levels take a wanted number of bits.

The cost of a step is the length of the levels as they are sent: the entropy of their tokens, the
plain bits of large levels, a sign for each that is not zero. It is computed from a histogram of
the magnitudes, in cells of a relative width of 2**-9, so that a long vector is read once.
"""

import math

import numpy as np
from numpy.typing import NDArray

from updates.arrays import F32, F64, spans
from updates.codecs.ecsq_tokens import EXTRA_BITS, LEVEL_BITS, TOKENS, tokens_of
from updates.codecs.rans import ideal_bits

#: float32 bits below a histogram's cell, and below a step's own resolution.
_CELL_BITS, _STEP_BITS = 14, 13
_CELLS = (0x3F800000 >> _CELL_BITS) + 1
#: Against an entropy whose last bit differs from one machine to another.
_TOLERANCE_BITS = 1e-6


def smallest_step(largest: float) -> float:
    """Return the step that gives the largest magnitude, in [0.5, 1), the largest level."""
    return math.ldexp(largest, 1 - LEVEL_BITS)


def largest_step(largest: float) -> float:
    """Return a step that gives only magnitudes near to the largest a level other than zero."""
    return largest * (2 - 2.0**-8)


def find_step(magnitudes: F32, bits: float) -> float:
    """Return the smallest step, up to 0.1 %, whose levels cost at most ``bits`` a value.

    Args:
        magnitudes: Shape ``(n,)``, the largest in [0.5, 1).
        bits: Wanted bits a value.

    Returns:
        The step, with few enough bits of its own; the largest possible where all cost more.
    """
    counts = _histogram(magnitudes)
    cells = np.flatnonzero(counts)
    centres = ((cells << _CELL_BITS) + (1 << (_CELL_BITS - 1))).astype(np.int32).view(np.float32)
    weights = counts[cells].astype(np.float64)
    wanted = bits * magnitudes.size + _TOLERANCE_BITS
    largest = float(magnitudes.max())
    low, high = _grid(smallest_step(largest)) + 1, _grid(largest_step(largest))
    while low < high:
        middle = (low + high) // 2
        if _cost(centres, weights, _on_grid(middle)) <= wanted:
            high = middle
        else:
            low = middle + 1
    return _on_grid(high)


def _histogram(magnitudes: F32) -> NDArray[np.int64]:
    counts = np.zeros(_CELLS, dtype=np.int64)
    for span in spans(0, magnitudes.size):
        counts += np.bincount(magnitudes[span].view(np.int32) >> _CELL_BITS, minlength=_CELLS)
    return counts


def _cost(centres: F32, weights: F64, step: float) -> float:
    tokens = tokens_of(np.rint(centres / np.float32(step)).astype(np.int32))
    counts = np.bincount(tokens, weights=weights, minlength=TOKENS)
    plain = float((counts * EXTRA_BITS).sum() + counts[1:].sum())
    return ideal_bits(counts) + plain


def _grid(step: float) -> int:
    return int(np.float32(step).view(np.int32)) >> _STEP_BITS


def _on_grid(number: int) -> float:
    return float(np.int32(number << _STEP_BITS).view(np.float32))
