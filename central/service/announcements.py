"""What central says to persons: each task's retained status, and that central itself is there."""

from collections.abc import Iterator

from central.core.rounds import RoundState
from central.core.tasks import TaskProgress
from central.service.desk import Desk
from central.service.records import TaskRecord
from central.service.registry import Registry
from schemas.tasks import CentralState, ParkedNote, RoundSummary, TaskStatus
from schemas.topics import Kind, Topic
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.parking import ParkedSummary, nothing_parked

#: Statuses that stay retained; those of older ended tasks are cleared.
MAX_RETAINED = 100
#: Ended rounds listed in a status.
MAX_HISTORY = 100
_FLOAT32_BYTES = 4


def state_message(
    status: str,
    boot: int,
    ts: float,
    parked: ParkedSummary | None = None,
    *,
    connection: int = 0,
) -> Outgoing:
    """Return central's birth or death."""
    told = parked or nothing_parked()
    notes = tuple(
        ParkedNote(
            number=row.number, topic=row.topic, error=row.error, tries=row.tries, ts=row.last_s
        )
        for row in told.newest
    )
    state = CentralState.model_validate(
        {
            "status": status,
            "boot": boot,
            "ts": ts,
            "connection": connection,
            "parked": told.count,
            "parked_newest": notes,
        }
    )
    return Outgoing(Topic(Kind.CENTRAL_STATE), state.model_dump_json().encode())


class Announcements:
    """Publishes what changed: at once when it matters, else with the next tick."""

    def __init__(self, desk: Desk, registry: Registry) -> None:
        self._desk = desk
        self._registry = registry
        self._told_parked = nothing_parked()
        self._connections = 0

    def connected(self) -> None:
        """Note a new connection: what others told before it may be lost."""
        self._connections += 1

    def birth(self, now_s: float) -> Iterator[Outgoing]:
        """Say that central is there, and every status again: the broker may have lost them."""
        failpoint("central.birth.due")
        yield self._state(now_s)
        ended = self._desk.store.ended_tasks()[-MAX_RETAINED:]
        for task in (*ended, *self._desk.store.live_tasks()):
            yield self._message(task, now_s)
        failpoint("central.birth.told")

    def parked(self, now_s: float) -> Iterator[Outgoing]:
        """Say anew that central is there when other messages are parked than it told."""
        if self._desk.parked() != self._told_parked:
            yield self._state(now_s)

    def changed(self, now_s: float, *, urgent_only: bool) -> Iterator[Outgoing]:
        """Yield the statuses that changed."""
        for name, is_urgent in list(self._desk.changed.items()):
            if urgent_only and not is_urgent:
                continue
            del self._desk.changed[name]
            task = self._desk.store.task(name)
            if task is not None and task.progress.is_final:
                yield from self._ended(task, now_s)
            elif task is not None:
                yield self._message(task, now_s)

    def rejected(self, task: str, reason: str, now_s: float) -> Outgoing:
        """Return the status of what could not become a task."""
        status = TaskStatus(task=task, state="rejected", reason=reason, ts=now_s)
        return _retained(task, status)

    def status(self, task: TaskRecord, now_s: float) -> TaskStatus:
        """Return a task's status."""
        progress = task.progress
        record = self._desk.open_round(task)
        history = self._desk.store.ended_rounds(task.task, MAX_HISTORY)
        if progress.step == "evaluating":
            history = history[:-1]  # told once it is measured
        return TaskStatus(
            task=task.task,
            state=progress.state,
            reason=self._desk.delayed.get(task.task)
            or (record.state.reason if record else None)
            or progress.reason,
            model=task.submission.model,
            round=progress.round if not progress.is_final else None,
            phase=None if progress.is_final or not record else _phase(record.state),
            rounds=progress.rounds,
            committed=progress.committed,
            abandoned=progress.abandoned,
            cohort=len(record.state.cohort) if record else 0,
            reported=len(record.state.reported) if record else 0,
            min_clients=task.min_clients,
            devices_online=self._registry.online(),
            late=task.totals.late,
            metrics=task.metrics,
            model_sha256=task.model_sha256,
            parameters=task.plan.parameters if task.plan else 0,
            uplink_bytes=task.totals.uplink_bytes,
            downlink_bytes=task.totals.downlink_bytes,
            uplink_wire_bytes=task.totals.uplink_wire_bytes,
            downlink_wire_bytes=task.totals.downlink_wire_bytes,
            codecs=history[-1].summary.codecs if history and history[-1].summary else {},
            uplink_ratio=_ratio(task, task.totals.uplink_bytes),
            uplink_wire_ratio=_ratio(task, task.totals.uplink_wire_bytes),
            updates_accepted=task.totals.updates_accepted,
            history=_with_lost(progress, [row.summary for row in history if row.summary]),
            ts=now_s,
        )

    def _state(self, now_s: float) -> Outgoing:
        self._told_parked = self._desk.parked()
        return state_message(
            "online",
            self._desk.boot,
            now_s,
            self._told_parked,
            connection=self._connections,
        )

    def _message(self, task: TaskRecord, now_s: float) -> Outgoing:
        return _retained(task.task, self.status(task, now_s))

    def _ended(self, task: TaskRecord, now_s: float) -> Iterator[Outgoing]:
        """Tell an ended task's status; one that was cleared does not come back: a late update."""
        ended = self._desk.store.ended_tasks()
        if task.task in {one.task for one in ended[-MAX_RETAINED:]}:
            yield self._message(task, now_s)
        if len(ended) > MAX_RETAINED:
            topic = Topic(Kind.TASK_STATUS, task=ended[-MAX_RETAINED - 1].task)
            yield Outgoing(topic, b"", retain=True)


def _ratio(task: TaskRecord, uplink_bytes: int) -> float | None:
    """Return how many times more bytes the accepted updates would have taken as float32."""
    if task.plan is None or uplink_bytes == 0:
        return None
    raw_bytes = _FLOAT32_BYTES * task.plan.parameters * task.totals.updates_accepted
    return raw_bytes / uplink_bytes


def _phase(state: RoundState) -> str:
    return "bidding" if state.is_bidding else state.phase.value


def _with_lost(progress: TaskProgress, ended: list[RoundSummary]) -> tuple[RoundSummary, ...]:
    lost = [
        RoundSummary(round=rounds.first, outcome="abandoned", reason=rounds.reason)
        for rounds in progress.lost
    ]
    return tuple(sorted([*ended, *lost], key=lambda summary: summary.round)[-MAX_HISTORY:])


def _retained(task: str, status: TaskStatus) -> Outgoing:
    text = status.model_dump_json(exclude_none=True)
    return Outgoing(Topic(Kind.TASK_STATUS, task=task), text.encode())
