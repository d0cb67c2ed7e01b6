"""What central counts for those who watch it.

Counts are for curves and alarms, not for the books: they begin at zero with each start, and what
a turn that a full disk has undone had counted is counted again with the turn that repeats it.
"""

from dataclasses import dataclass
from typing import Protocol

from central.core.round_events import Cause
from schemas.messages import Receipt
from schemas.tasks import RoundSummary, TaskState


@dataclass(frozen=True, slots=True)
class Accepted:
    """One update that was accepted.

    Attributes:
        region: Of its device.
        device: Its id.
        codec: What it is encoded with.
        payload_bytes: Its size.
        plain_bytes: The size of its parameters as float32.
        uplink_wire_bytes: What its device has sent for it, see ``central.core.traffic``.
        downlink_wire_bytes: What its device has received for it.
    """

    region: str
    device: str
    codec: str
    payload_bytes: int
    plain_bytes: int
    uplink_wire_bytes: int
    downlink_wire_bytes: int


@dataclass(frozen=True, slots=True)
class RoundEnd:
    """One round that has ended.

    Attributes:
        summary: As the task's status tells it.
        cause: Why it was abandoned; None: it was committed.
        cohort: How many clients were asked.
        contributions: How many updates it had.
    """

    summary: RoundSummary
    cause: Cause | None
    cohort: int
    contributions: int


class Meter(Protocol):
    """Takes what happens; it neither waits nor raises."""

    def receipted(self, receipt: Receipt) -> None:
        """Take central's word on an offer, repeated ones too."""

    def accepted(self, update: Accepted) -> None:
        """Take an update that was accepted."""

    def round_ended(self, end: RoundEnd) -> None:
        """Take the end of a round."""

    def task_ended(self, state: TaskState) -> None:
        """Take the end of a task."""


class NoMeter:
    """The meter of a central without metrics."""

    def receipted(self, receipt: Receipt) -> None:
        """Do nothing."""

    def accepted(self, update: Accepted) -> None:
        """Do nothing."""

    def round_ended(self, end: RoundEnd) -> None:
        """Do nothing."""

    def task_ended(self, state: TaskState) -> None:
        """Do nothing."""
