"""How far each device is with each round: the newest status, told to central on change.

A status is worth no fsync of its own. It is written with whatever else is written next, at the
latest after five seconds. One that a crash takes is healed: the assignment is sent again to every
device without a status, and a device that knows the job publishes its latest status again.
"""

from collections.abc import Callable, Iterable

from regional_gateway.core.answers import ENDED, Key
from regional_gateway.core.fanout import is_newer
from regional_gateway.service.ports import AssignmentStore, StatusRow
from regional_gateway.service.relay import Relay
from schemas.envelope import Frame
from schemas.errors import MessageError
from schemas.messages import JobStatus
from transport.failpoints import failpoint

_WRITE_AFTER_S = 5.0


class Statuses:
    """The newest status of each device for each current round."""

    def __init__(self, store: AssignmentStore, relay: Relay) -> None:
        self._store = store
        self._relay = relay
        self._rows: dict[Key, dict[str, StatusRow]] = {}
        self._unwritten: dict[tuple[str, Key], StatusRow] = {}
        self._unwritten_since_s: float | None = None
        for row in store.statuses():
            self._rows.setdefault(row.key, {})[row.device] = row

    def on_status(self, device: str, task: str, frame: Frame, now_s: float) -> None:
        """Take one status of a device.

        Raises:
            MessageError: Topic and body name different tasks.
        """
        body = frame.body(JobStatus)
        if body.task != task:
            message = f"task: the topic says {task}, the status {body.task}"
            raise MessageError(message)
        key = (body.task, body.round)
        order = (frame.header.boot, frame.header.seq)
        row = StatusRow(device, key, order, body.state, frame.encode())
        if self._is_news(row):
            self._relay.put((device, key), row.frame)
            self._keep(row, now_s)

    def answered(self, key: Key) -> set[str]:
        """Return the devices that have a status for a round."""
        return set(self._rows.get(key, ()))

    def ended_by(self, device: str) -> set[Key]:
        """Return the rounds that a device has done, rejected or failed."""
        return {
            key
            for key, rows in self._rows.items()
            if device in rows and rows[device].state in ENDED
        }

    def relay_again(self, keys: Iterable[Key]) -> None:
        """Tell central the latest statuses of some rounds again."""
        for key in keys:
            for row in self._rows.get(key, {}).values():
                self._relay.put((row.device, key), row.frame)

    def forget(self, key: Key) -> None:
        """Forget a round; call it after its rows are gone."""
        self._rows.pop(key, None)
        for subject in [s for s in self._unwritten if s[1] == key]:
            del self._unwritten[subject]

    def write(self) -> Callable[[], None] | None:
        """Write what is not yet written; return what to do after the commit, if anything."""
        batch = tuple(self._unwritten.items())
        for _, row in batch:
            if self._store.assignment(row.key) is not None:
                self._store.save_status(row)
                failpoint("gateway.status.saved")
        return (lambda: self._written(batch)) if batch else None

    def is_due(self, now_s: float) -> bool:
        """Tell whether a status has waited long enough to be worth a commit of its own."""
        since_s = self._unwritten_since_s
        return since_s is not None and now_s - since_s >= _WRITE_AFTER_S

    def _is_news(self, row: StatusRow) -> bool:
        known = self._rows.get(row.key, {}).get(row.device)
        return is_newer(known.order if known else None, row.order)

    def _keep(self, row: StatusRow, now_s: float) -> None:
        if self._store.assignment(row.key) is None:
            return
        self._rows.setdefault(row.key, {})[row.device] = row
        self._unwritten[row.device, row.key] = row
        if self._unwritten_since_s is None:
            self._unwritten_since_s = now_s

    def _written(self, batch: Iterable[tuple[tuple[str, Key], StatusRow]]) -> None:
        for subject, row in batch:
            if self._unwritten.get(subject) is row:
                del self._unwritten[subject]
        if not self._unwritten:
            self._unwritten_since_s = None
