"""The positions of the K largest magnitudes of a long vector, exactly and fast.

A sample of the vector tells a magnitude that a few more than K values exceed; the exact choice is
made among those alone. Where the sample misled, the whole vector is partitioned.
"""

import math

import numpy as np
from numpy.typing import NDArray

from updates.arrays import F32
from updates.codecs.rice import Positions

_Bits = NDArray[np.int32]

_SAMPLE_VALUES = 1 << 14
#: Standard errors of the sample by which its threshold is lowered.
_SAFETY = 4.0


def largest_positions(vector: F32, count: int) -> Positions:
    """Return the ascending positions of the ``count`` largest magnitudes, 1 <= count <= n.

    Among equal magnitudes the first in canonical order are taken.
    """
    magnitudes = np.abs(vector).view(np.int32)  # IEEE 754: magnitudes order as their bits do
    candidates = np.flatnonzero(magnitudes >= _threshold(magnitudes, count))
    if candidates.size < count:
        candidates = np.arange(vector.size)
    return candidates[_largest(magnitudes[candidates], count)].astype(np.int64, copy=False)


def _threshold(magnitudes: _Bits, count: int) -> int:
    """Return bits of a magnitude that probably at least ``count`` values reach, not many more."""
    step = magnitudes.size // _SAMPLE_VALUES
    if step <= 1:
        return 0
    sample = magnitudes[::step]
    expected = count / step
    rank = math.ceil(expected + _SAFETY * math.sqrt(expected) + _SAFETY)
    if rank >= sample.size:
        return 0
    return int(np.partition(sample, -rank)[-rank])


def _largest(magnitudes: _Bits, count: int) -> Positions:
    threshold = np.partition(magnitudes, -count)[-count]
    above = np.flatnonzero(magnitudes > threshold)
    ties = np.flatnonzero(magnitudes == threshold)[: count - above.size]
    return np.sort(np.concatenate((above, ties))).astype(np.int64, copy=False)
