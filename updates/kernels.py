"""Compiled loops for sums of updates, where numba is installed; to the bit what numpy gives.

A sum of many large updates is bound by passes over memory, of which numpy needs four to seven and
a compiled loop one. Who adds nothing up neither has nor imports numba.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from updates.arrays import F32, F64

U8: TypeAlias = NDArray[np.uint8]

#: Bytes of codes that are spread at once, and the levels they become: both stay near the core.
_TILE = 2048
_HALF_BITS = 4
_LOW_HALVES = 0x0F0F


@dataclass(frozen=True, slots=True)
class Kernels:
    """Loops whose products and sums are those of IEEE 754, in the order of the definition.

    Each adds ``weight * float64(value)`` to float64 sums; ``value`` is a float32, or the product
    ``float32(level) * scale`` in float32.

    Attributes:
        add_values: ``(sums, values, weight)``, both of shape ``(n,)``.
        add_levels: ``(sums, levels, scales, weight)``, of shape ``(rows, n)`` and a scale a row.
        add_codes: ``(sums, codes, line, scale, weight)``: a code is a byte, and its level
            ``line[0] + line[1] * code``.
        add_halves: ``(sums, octets, line, scale, weight)``: the same with codes of four bits, two
            to a byte, the lower first.
        add_spread: ``(sums, octets, spread, scale, weight)``: the levels of a byte's codes, each
            an int8, are the bytes of the word that ``spread`` holds for the byte.
    """

    add_values: Callable[[F64, F32, float], None]
    add_levels: Callable[[F64, Any, F32, float], None]
    add_codes: Callable[[F64, U8, F32, np.float32, float], None]
    add_halves: Callable[[F64, U8, F32, np.float32, float], None]
    add_spread: Callable[[F64, U8, Any, np.float32, float], None]


@cache
def load() -> Kernels | None:
    """Return the loops, each compiled when first called; None without numba.

    Nothing is kept on disk: a package's folder may not be writable, and a loop takes half a
    second.
    """
    if find_spec("numba") is None:
        return None
    import numba  # noqa: PLC0415 - optional, and slow to import

    compiled = numba.njit(nogil=True, error_model="numpy")
    loops = (_add_values, _add_levels, _add_codes, _add_halves, _add_spread)
    return Kernels(*(compiled(loop) for loop in loops))


def _add_values(sums: F64, values: F32, weight: float) -> None:
    for place in range(values.size):
        sums[place] += weight * np.float64(values[place])


def _add_levels(sums: F64, levels: Any, scales: F32, weight: float) -> None:  # noqa: ANN401
    for row in range(levels.shape[0]):
        scale, into, of = scales[row], sums[row], levels[row]
        for place in range(of.size):
            into[place] += weight * np.float64(np.float32(of[place]) * scale)


def _add_codes(sums: F64, codes: U8, line: F32, scale: np.float32, weight: float) -> None:
    low, each = line[0], line[1]
    for place in range(codes.size):
        sums[place] += weight * np.float64((low + each * np.float32(codes[place])) * scale)


def _add_halves(sums: F64, octets: U8, line: F32, scale: np.float32, weight: float) -> None:
    low, each = line[0], line[1]
    pairs = np.empty(_TILE, np.uint16)
    codes = pairs.view(np.uint8)
    for begin in range(0, octets.size, _TILE):
        part = octets[begin : begin + _TILE]
        for place in range(part.size):
            pair = np.uint16(part[place])
            pairs[place] = (pair | (pair << np.uint16(_HALF_BITS))) & np.uint16(_LOW_HALVES)
        into = sums[2 * begin : 2 * (begin + part.size)]
        for place in range(into.size):
            into[place] += weight * np.float64((low + each * np.float32(codes[place])) * scale)


def _add_spread(
    sums: F64,
    octets: U8,
    spread: Any,  # noqa: ANN401
    scale: np.float32,
    weight: float,
) -> None:
    words = np.empty(_TILE, spread.dtype)
    levels = words.view(np.int8)
    each = levels.size // words.size
    for begin in range(0, octets.size, _TILE):
        part = octets[begin : begin + _TILE]
        for place in range(part.size):
            words[place] = spread[part[place]]
        into = sums[each * begin : each * (begin + part.size)]
        for place in range(into.size):
            into[place] += weight * np.float64(np.float32(levels[place]) * scale)
