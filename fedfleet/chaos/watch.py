"""What is seen of a run from outside, by one more session at the broker."""

from dataclasses import dataclass, field

from fedfleet.client import Message
from fedfleet.statuses import read_status
from schemas.envelope import Header, decode_frame
from schemas.errors import WireError
from schemas.messages import Assignment, Receipt
from schemas.tasks import TaskStatus
from schemas.topics import PREFIX, Kind, Topic, state_filter, status_filter

FILTERS = (
    status_filter(),
    state_filter(),
    Topic(Kind.CENTRAL_STATE).name,
    f"{PREFIX}/gw/+/dn/task",
    f"{PREFIX}/gw/+/dn/rcpt/+",
)
_SIGNS = (Assignment.TYPE, Receipt.TYPE)


@dataclass(slots=True)
class Recovery:
    """How long a round stood still after central was started again.

    Attributes:
        boot: The newest boot of central that was seen before.
        started_s: When the new process was started, on the monotonic clock.
        unix_s: The same, unix seconds.
        is_disturbed: Whether the broker, or central's way to it, was hurt meanwhile.
        told_s: From there to the new life's first status of the task; None: there was none.
        moved_s: From there to its first assignment or receipt; None: there was none.
    """

    boot: int
    started_s: float
    unix_s: float
    is_disturbed: bool = False
    told_s: float | None = None
    moved_s: float | None = None


@dataclass(slots=True)
class Watch:
    """Statuses by task, and central's recoveries.

    Attributes:
        statuses: Newest status of each task.
        recoveries: One for each start of central after its first, while a task was running.
    """

    statuses: dict[str, TaskStatus] = field(default_factory=dict)
    recoveries: list[Recovery] = field(default_factory=list)
    _boot: int = 0
    _current: Recovery | None = None

    @property
    def accepted(self) -> int:
        """Updates accepted so far, as central tells."""
        return sum(status.updates_accepted for status in self.statuses.values())

    def is_ended(self, task: str) -> bool:
        """Tell whether a task has ended, as far as is known."""
        return task in self.statuses and self.statuses[task].is_final

    def take(self, message: Message, now_s: float) -> None:
        """Note one message."""
        status = read_status(message)
        if status is not None:
            self._status(status, now_s)
        header = _centrals(message)
        if header is not None:
            self._moved(header, now_s)
            self._boot = max(self._boot, header.boot)

    def central_killed(self) -> None:
        """Note that central is dead: what is awaited of this life does not come any more."""
        self._current = None

    def central_started(self, now_s: float, unix_s: float, *, is_disturbed: bool) -> None:
        """Note that central was started again; only counted while a round may be open."""
        if any(status.state == "running" for status in self.statuses.values()):
            self._current = Recovery(self._boot, now_s, unix_s, is_disturbed)
            self.recoveries.append(self._current)

    def disturbed(self) -> None:
        """Note that a recovery that goes on is hindered by more than central's own death."""
        if self._current is not None:
            self._current.is_disturbed = True

    def _status(self, status: TaskStatus, now_s: float) -> None:
        known = self.statuses.get(status.task)
        if known is None or status.ts >= known.ts:
            self.statuses[status.task] = status
        current = self._current
        if current is not None and current.told_s is None and status.ts > current.unix_s:
            current.told_s = now_s - current.started_s

    def _moved(self, header: Header, now_s: float) -> None:
        current = self._current
        is_new = current is not None and header.boot > current.boot
        if current is not None and is_new and current.moved_s is None and header.type in _SIGNS:
            current.moved_s = now_s - current.started_s


def _centrals(message: Message) -> Header | None:
    if message.topic.kind not in (Kind.TASK, Kind.RECEIPT):
        return None
    try:
        header = decode_frame(message.payload).header
    except WireError:
        return None
    return header if header.src == "central" else None
