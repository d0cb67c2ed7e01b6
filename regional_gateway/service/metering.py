"""What a gateway counts for those who watch it.

Counts are for curves and alarms, not for the books: they begin at zero with each start, and what
a turn that a full disk has undone had counted is counted again with the turn that repeats it.
"""

from typing import Literal, Protocol

from schemas.messages import Receipt

#: Who has given a receipt.
Origin = Literal["gateway", "central"]


class Meter(Protocol):
    """Takes what happens; it neither waits nor raises."""

    def receipted(self, origin: Origin, receipt: Receipt) -> None:
        """Take a receipt on its way to a device; a repeated one of central's is not told again."""

    def taken(self, device: str, payload_bytes: int) -> None:
        """Take that an update came into custody."""

    def released(self, seconds: float) -> None:
        """Take that central has ended an update which was in custody for so long."""


class NoMeter:
    """The meter of a gateway without metrics."""

    def receipted(self, origin: Origin, receipt: Receipt) -> None:
        """Do nothing."""

    def taken(self, device: str, payload_bytes: int) -> None:
        """Do nothing."""

    def released(self, seconds: float) -> None:
        """Do nothing."""
