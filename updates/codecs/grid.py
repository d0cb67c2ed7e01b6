"""Levels at equal distances, and the scales that make them cover some values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from updates.arrays import F32, F64
from updates.codecs.bits import U8

_MAX_F32 = float(np.finfo(np.float32).max)
_MAX_I8 = 127
_BYTE_BITS = 8


@dataclass(frozen=True, slots=True)
class Grid:
    """Levels that are whole multiples of a scale: ``stride * code - top``, 0 <= code < levels.

    Attributes:
        bits: Width of a code.
        levels: How many codes have a meaning.
        stride: Distance of two levels: the step of the quantizer in scales.
    """

    bits: int
    levels: int
    stride: int

    @classmethod
    def with_zero(cls, width: int) -> "Grid":
        """Return ``2**width - 1`` levels around one that is zero; one code is never sent."""
        return cls(width, (1 << width) - 1, 1)

    @classmethod
    def mid_rise(cls, width: int) -> "Grid":
        """Return the ``2**width`` odd levels around zero."""
        return cls(width, 1 << width, 2)

    @property
    def zero(self) -> float:
        """Code of the value zero; between two codes on a mid-rise grid."""
        return (self.levels - 1) / 2

    @property
    def top(self) -> int:
        """The outermost level."""
        return self.stride * (self.levels - 1) // 2

    @property
    def max_scale(self) -> np.float32:
        """The largest float32 whose product with the top level is one too, as is the step."""
        scale: np.float32 = np.float32(_MAX_F32 / max(self.top, self.stride))
        if float(scale) * self.top > _MAX_F32:
            scale = np.nextafter(scale, np.float32(0))
        return scale

    def level(self, codes: U8) -> NDArray[np.int8] | NDArray[np.int16]:
        """Return the levels of codes, one byte each where they fit; unpacked codes are spoilt."""
        if self.top > _MAX_I8:
            wide = codes.astype(np.int16)
            wide *= np.int16(self.stride)
            wide -= np.int16(self.top)
            return wide
        # What was unpacked is ours to change; a code a byte lies in the payload itself.
        out = codes if self.bits < _BYTE_BITS else None
        if self.stride > 1:
            np.left_shift(codes, np.uint8(1), out=codes)
        levels: NDArray[np.int8] = np.subtract(codes, np.uint8(self.top), out=out).view(np.int8)
        return levels


def covering(peaks: F64, top: float, limit: np.float32) -> F32:
    """Return scales with ``peak / scale <= top``, as small as float32 allows.

    Args:
        peaks: Largest magnitude of each group.
        top: The outermost level that values may reach.
        limit: No scale may be larger; groups that would need one are clipped to ``top * limit``.
    """
    scales = np.minimum(peaks / top, float(limit)).astype("<f4")
    short = (scales.astype(np.float64) * top < peaks) & (scales < limit)
    scales[short] = np.nextafter(scales[short], np.float32(np.inf))
    return scales
