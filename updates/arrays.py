"""Array types, and walks over long vectors in blocks that fit the cache."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from updates.errors import NonFiniteError

F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]

_MAX = np.finfo(np.float32).max

#: Values a block: 512 KiB of float32. A block and its scratch stay in the cache; smaller blocks
#: were measured to lose more to the calls of numpy than they gain.
BLOCK_VALUES = 1 << 17


def spans(start: int, stop: int) -> Iterator[slice]:
    """Yield consecutive slices of at most ``BLOCK_VALUES`` that cover ``[start, stop)``."""
    for begin in range(start, stop, BLOCK_VALUES):
        yield slice(begin, min(begin + BLOCK_VALUES, stop))


def bounded_sum(left: F32, right: F32) -> F32:
    """Return the sum, a new vector, in float32 and kept within its range.

    Elementwise, so two machines that must hold the same vector get the same bits.
    """
    with np.errstate(over="ignore"):
        total = left + right
    return np.clip(total, -_MAX, _MAX, out=total)


def peak(vector: F32) -> float:
    """Return the largest magnitude in a non-empty vector; NaN if it holds one."""
    return float(np.maximum(vector.max(), -vector.min()))


def check_finite(vector: F32, what: str) -> None:
    """Refuse NaN and infinities.

    Args:
        vector: Shape ``(n,)``.
        what: What the vector is, for the error's text.

    Raises:
        NonFiniteError: A value is not finite; the text gives the index of the first.
    """
    for span in spans(0, vector.size):
        block = vector[span]
        if not np.isfinite(peak(block)):
            index = span.start + int(np.argmin(np.isfinite(block)))
            message = f"{what}: value {index} is {vector[index]}, every value must be finite"
            raise NonFiniteError(message)
