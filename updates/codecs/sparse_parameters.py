"""Parameters that several codecs share: what share of the values is sent."""

import math

from updates.errors import CodecParameterError


def check_fraction(value: object) -> None:
    """Refuse a ``fraction`` that is not a share.

    Raises:
        CodecParameterError: It is not a number above 0 and up to 1.
    """
    if type(value) in (int, float) and 0 < value <= 1:  # type: ignore[operator]
        return
    raise CodecParameterError(
        field="fraction", value=value, limit="must be a number above 0 and up to 1"
    )


def share_of(count: int, fraction: float) -> int:
    """Return how many of ``count`` a fraction is, rounded up: 1 to ``count``."""
    return min(count, max(1, math.ceil(fraction * count)))
