"""Assignments on their way down: kept, fanned out, repeated to who is silent, and asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from regional_gateway.core import fanout
from regional_gateway.core.answers import (
    MAX_SETTLED,
    Give,
    Key,
    Open,
    answer,
    dropped,
    settled_for,
    unknown,
)
from regional_gateway.service.deferred import Deferred
from regional_gateway.service.devices import Devices
from regional_gateway.service.due import NOW_S, earliest
from regional_gateway.service.links import Links
from regional_gateway.service.models import Models
from regional_gateway.service.ports import AssignmentRow, AssignmentStore
from regional_gateway.service.statuses import Statuses
from schemas.envelope import Frame
from schemas.errors import MessageError
from schemas.messages import Assignment, JobRef, Next, NoJob, Settlement
from schemas.topics import Kind
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.retry import Backoff

#: Jobs that one question of the gateway can name.
MAX_HOLDING = 64
#: Rounds remembered of which central is to be asked; who is left out asks again.
MAX_UNSETTLED = 256


@dataclass(slots=True)
class _Round:
    """How often the devices of one round were asked, and when again."""

    tries: int = 0
    next_s: float = NOW_S
    asked: set[str] = field(default_factory=set)


class Assignments:
    """The region's current work."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        store: AssignmentStore,
        links: Links,
        devices: Devices,
        statuses: Statuses,
        models: Models,
        deferred: Deferred,
        backoff: Backoff,
        rng: np.random.Generator,
    ) -> None:
        """Begin with what is stored; devices without a status are asked at the first tick.

        Args:
            store: The rows.
            links: Makes messages.
            devices: Who is online.
            statuses: Who has answered.
            models: Fetches what the assignments name.
            deferred: What waits for the commit.
            backoff: Delays between repeated fan-outs.
            rng: Source of their jitter.
        """
        self._store = store
        self._links = links
        self._devices = devices
        self._statuses = statuses
        self._models = models
        self._deferred = deferred
        self._backoff = backoff
        self._rng = rng
        self._is_current = False
        #: Rounds that devices ask for and of which central must be asked what became.
        self._unsettled: dict[Key, None] = {}
        self._rounds = {row.key: _Round() for row in store.assignments()}

    def on_assignment(self, frame: Frame, now_s: float) -> list[Outgoing]:
        """Keep an assignment and fan it out; a repeated one tells its statuses again.

        Raises:
            MessageError: It is for another region, or its objects do not fit its tail.
        """
        body = frame.body(Assignment)
        self._check(body, frame)
        rounds = self._held_rounds()
        if fanout.is_outdated(rounds, body.task, body.round):
            return []
        row = _row(body, now_s)
        known = self._store.assignment(row.key)
        if known is not None:
            self._statuses.relay_again([row.key])
            if _says_the_same(known, row):
                return []
        for number in fanout.superseded(rounds, body.task, body.round):
            self._drop((body.task, number))
        self._keep(row, frame, body.settled)
        return [*self._fan_out(row, now_s), *self._models.fetch(row, frame.tail, now_s)]

    def on_next(self, device: str, frame: Frame) -> list[Outgoing]:
        """Answer a device's question for its job."""
        body = frame.body(Next)
        found = answer(
            device,
            _keys(body.holding),
            [Open(row.key, frozenset(row.cohort)) for row in self._store.assignments()],
            self._statuses.ended_by(device),
        )
        if isinstance(found, Give):
            return self._send(found.key, (device,))
        # Until central has confirmed the assignments, what a device holds may well be wanted.
        keep = found.keep if self._is_current else body.holding
        none = NoJob(keep=keep, settled=self._settled_for(device, body))
        return [self._links.tell(device, none, Kind.TASK, corr=frame.header.id)]

    def holding(self) -> tuple[JobRef, ...]:
        """Return the newest assignments, for the gateway's own question."""
        rows = self._store.assignments()[-MAX_HOLDING:]
        return tuple(JobRef(task=row.task, round=row.round_number) for row in rows)

    def unsettled(self) -> tuple[JobRef, ...]:
        """Return rounds of which central is asked what became, the longest wanted first."""
        keys = list(self._unsettled)[:MAX_SETTLED]
        return tuple(JobRef(task=task, round=number) for task, number in keys)

    def keys(self) -> list[Key]:
        """Return task and round of every current assignment."""
        return [row.key for row in self._store.assignments()]

    def on_no_job(self, body: NoJob, asked: Next) -> None:
        """Drop what central's answer to ``asked`` does not keep."""
        self._is_current = True
        for key in _keys(asked.unsettled):
            self._unsettled.pop(key, None)
        self._save_settlements(body.settled)
        failpoint("gateway.answer.taken")
        for key in dropped(self.keys(), _keys(asked.holding), _keys(body.keep)):
            self._drop(key)

    def cancel(self, task: str, note: bytes) -> list[Outgoing]:
        """Drop a task's assignments and pass central's note to their devices."""
        cohort: dict[str, None] = {}
        for row in self._store.assignments():
            if row.task == task:
                cohort.update(dict.fromkeys(row.cohort))
                self._drop(row.key)
        failpoint("gateway.cancel.applied")
        offline = self._devices.offline()
        present = [device for device in cohort if device not in offline]
        return [self._links.down(device, Kind.CONTROL, note) for device in present]

    def due(self, now_s: float) -> list[Outgoing]:
        """Ask devices without a status again, of every round whose time has come."""
        if all(now_s < state.next_s for state in self._rounds.values()):
            return []
        outgoing: list[Outgoing] = []
        for row in self._store.assignments():
            state = self._rounds.setdefault(row.key, _Round())
            if now_s >= state.next_s:
                outgoing += self._fan_out(row, now_s)
        return outgoing

    def wake(self) -> None:
        """Ask devices without a status at once: the downlink is back."""
        for state in self._rounds.values():
            state.next_s = NOW_S

    def next_due_s(self) -> float:
        """Return when ``due`` may have something to say; infinity: nothing is held."""
        return earliest(*(state.next_s for state in self._rounds.values()))

    def _fan_out(self, row: AssignmentRow, now_s: float) -> list[Outgoing]:
        state = self._rounds.setdefault(row.key, _Round())
        state.next_s = now_s + self._backoff.delay_s(state.tries, self._rng)
        answered = self._statuses.answered(row.key)
        here, gone = self._devices.here_and_gone(now_s)
        silent = fanout.unanswered(row.cohort, answered, gone)
        nodes = silent if state.asked else fanout.targets(silent, here)
        state.tries += 1
        state.asked.update(row.cohort)
        failpoint("gateway.assignment.due")
        return self._send(row.key, nodes)

    def _send(self, key: Key, nodes: Iterable[str]) -> list[Outgoing]:
        frame = self._store.assignment_frame(key)
        if frame is None:
            return []
        return [self._links.down(node, Kind.TASK, frame) for node in nodes]

    def _check(self, body: Assignment, frame: Frame) -> None:
        if body.region != self._links.region:
            message = f"region: {body.region!r}, this gateway serves {self._links.region!r}"
            raise MessageError(message)
        if fault := body.fault(len(frame.tail)):
            raise MessageError(fault)

    def _keep(self, row: AssignmentRow, frame: Frame, settled: Iterable[Settlement]) -> None:
        self._store.save_assignment(row, frame.encode())
        failpoint("gateway.assignment.saved")
        self._save_settlements(settled)
        if (write_done := self._statuses.write()) is not None:
            self._deferred.add(write_done)
        self._models.release()

    def _settled_for(self, device: str, question: Next) -> tuple[Settlement, ...]:
        asked, settled = _keys(question.unsettled), self._store.settlements()
        for key in unknown(sorted(asked), settled):
            if len(self._unsettled) < MAX_UNSETTLED:
                self._unsettled[key] = None
        return settled_for(device, settled, asked)

    def _save_settlements(self, settled: Iterable[Settlement]) -> None:
        for settlement in settled:
            self._store.save_settlement(settlement)
            failpoint("gateway.settlement.saved")

    def _drop(self, key: Key) -> None:
        self._store.drop_assignment(key)
        failpoint("gateway.assignment.dropped")
        self._deferred.add(lambda: self._forget(key))
        self._models.release()

    def forget_dropped(self) -> None:
        """Forget the rounds whose rows are gone; called after a commit."""
        for key in tuple(self._rounds):
            self._forget(key)

    def _forget(self, key: Key) -> None:
        if self._store.assignment(key) is None:
            self._rounds.pop(key, None)
            self._statuses.forget(key)

    def _held_rounds(self) -> dict[str, set[int]]:
        rounds: dict[str, set[int]] = {}
        for task, number in self.keys():
            rounds.setdefault(task, set()).add(number)
        return rounds


def _row(body: Assignment, now_s: float) -> AssignmentRow:
    return AssignmentRow(
        body.task,
        body.round,
        body.cohort,
        body.deadline,
        body.model,
        now_s,
        body.graph,
        body.deltas,
    )


def _says_the_same(known: AssignmentRow, new: AssignmentRow) -> bool:
    return (known.cohort, known.deadline_s, known.objects) == (
        new.cohort,
        new.deadline_s,
        new.objects,
    )


def _keys(jobs: Iterable[JobRef]) -> set[Key]:
    return {(job.task, job.round) for job in jobs}
