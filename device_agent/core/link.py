"""How fast this device's link is at least, by what its last uploads took.

An upload's time runs from the moment it was due to its receiver's first word, so it holds waits
and the way back too: the rate of each is a lower bound, and the largest of a few is the best one.
A short upload that was answered at once tells of the latency, not of the link.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: Uploads that are looked at; an older one says nothing of where the device is now.
REMEMBERED = 8
_SHORT_BYTES = 16 * 1024
_AT_ONCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload: its bytes, and the seconds until its receiver's first word on it."""

    size_bytes: int
    seconds: float


def rate_bytes_s(uploads: Sequence[Upload]) -> float | None:
    """Return what the link carries at least, bytes a second; None: nothing is known of it."""
    telling = [
        one for one in uploads if one.size_bytes >= _SHORT_BYTES or one.seconds > _AT_ONCE_S
    ]
    rates = [one.size_bytes / one.seconds for one in telling if one.seconds > 0]
    return max(rates, default=None)
