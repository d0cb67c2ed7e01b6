"""Assignments on their way to the gateways, repeated until every client has answered.

A client's own status (relayed by its gateway) is the answer; there is no receipt of the gateway
in between that could be true while the device knows nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from central.service import memories
from central.service.deltas import Deltas
from central.service.desk import Desk
from central.service.manifests import Manifests
from central.service.records import RoundRecord, TaskRecord
from schemas.limits import MAX_COHORT, MAX_HEADER_BYTES
from schemas.messages import (
    Assignment,
    JobRef,
    Next,
    NoJob,
    ObjectManifest,
    Settlement,
    TrainingPlan,
)
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectDamagedError
from transport.retry import Backoff

RoundKey = tuple[str, int]
#: Ended tasks whose last round is settled again in each answer; they must fit the header.
_MAX_SETTLED = 2
#: Settlements in one answer, as ``NoJob.settled`` allows.
_MAX_ANSWERED = 8
#: What a frame's header needs beside its body.
_ENVELOPE_BYTES = 1024


@dataclass(slots=True)
class _Repeat:
    tries: int
    next_s: float


class Assignments:
    """Sends open rounds to the regions of their cohorts."""

    def __init__(self, desk: Desk, backoff: Backoff) -> None:
        self._desk = desk
        self._backoff = backoff
        self._repeats: dict[tuple[str, int, str], _Repeat] = {}
        self._answered: dict[RoundKey, set[str]] = {}
        self._manifests = Manifests(desk.objects)
        self._deltas = Deltas(desk.store, self._manifests)

    def send(self, task: TaskRecord, record: RoundRecord, now_s: float) -> Iterator[Outgoing]:
        """Send a round to every region of its cohort, now and until it is answered."""
        for region in self._regions(record):
            self._repeats[(task.task, record.state.number, region)] = _Repeat(0, now_s)
            yield from self._send(task, record, region, now_s)

    def fault(self, task: TaskRecord) -> str | None:
        """Return what is wrong with the files of a task's model and graph; None: nothing."""
        graph = task.plan.graph_sha256 if task.plan else None
        named = {"model": task.model_sha256, "graph": graph}
        try:
            for what, sha256 in named.items():
                if sha256 is not None:
                    self._manifests.of(sha256, inline=what == "model")
        except ObjectDamagedError as error:
            return f"{what}: {error}"
        return None

    def announced_bytes(self, task: TaskRecord, record: RoundRecord) -> int:
        """Return the size of what a round's assignment gives each of its cohort to fetch.

        That is the newest delta, or the model where there is none. What a device asks for beyond
        it is between the device and its gateway.
        """
        deltas, _ = self._deltas.of(task, record)
        return deltas[-1].object.size if deltas else record.base_model_bytes

    def answered(self, task: str, number: int, device: str) -> None:
        """Note that a client knows of its job."""
        self._answered.setdefault((task, number), set()).add(device)

    def ended(self, task: str, number: int) -> None:
        """Forget a round that has ended, and what was said of the rounds before it since then."""
        for known in [key for key in self._answered if key[0] == task and key[1] <= number]:
            del self._answered[known]
        for key in [key for key in self._repeats if key[:2] == (task, number)]:
            del self._repeats[key]

    def forget_ended(self) -> None:
        """Forget what was said of tasks that have ended or never were."""
        live = {task.task for task in self._desk.store.live_tasks()}
        for key in [key for key in self._answered if key[0] not in live]:
            del self._answered[key]

    def wake(self, region: str | None, now_s: float) -> None:
        """Repeat at once what awaits an answer: a gateway, or central's own broker, is back."""
        for task in self._desk.store.live_tasks():
            record = self._desk.reporting_round(task)
            for place in self._regions(record) if record else ():
                if region in (None, place):
                    key = (task.task, task.progress.round, place)
                    self._repeats[key] = _Repeat(0, now_s)

    def due(self, now_s: float) -> Iterator[Outgoing]:
        """Yield the assignments that are due to be repeated."""
        for key, repeat in list(self._repeats.items()):
            if repeat.next_s > now_s:
                continue
            task = self._desk.store.task(key[0])
            record = self._desk.reporting_round(task) if task else None
            if task is None or record is None or record.state.number != key[1]:
                del self._repeats[key]
                continue
            yield from self._send(task, record, key[2], now_s)

    def answer(self, region: str, question: Next, corr: str, now_s: float) -> Iterator[Outgoing]:
        """Answer a gateway that asks for its region's current work; it always gets an answer."""
        keep = []
        for task in self._desk.store.live_tasks():
            record = self._desk.reporting_round(task)
            if record is None or not self._members(record, region):
                continue
            ref = JobRef(task=task.task, round=record.state.number)
            keep.append(ref)
            if ref not in question.holding:
                self._repeats[(task.task, record.state.number, region)] = _Repeat(0, now_s)
                yield from self._send(task, record, region, now_s)
        held = tuple(ref for ref in keep if ref in question.holding)
        asked = [
            settlement
            for ref in question.unsettled
            for settlement in self._settled(ref.task, ref.round, region, with_moved=True)
        ]
        settled = _that_fit([*asked, *self._settled_last(region)])
        answer = NoJob(keep=held, settled=settled)
        failpoint("central.question.answered")
        yield self._desk.to_gateway(region, Kind.TASK, answer, corr=corr)

    def _send(
        self, task: TaskRecord, record: RoundRecord, region: str, now_s: float
    ) -> Iterator[Outgoing]:
        members = self._members(record, region)
        number = record.state.number
        key = (task.task, number, region)
        waiting = set(members) - self._answered.get((task.task, number), set())
        waiting &= record.state.asked
        if not waiting - record.state.reported - record.state.failed:
            self._repeats.pop(key, None)
            return
        repeat = self._repeats[key]
        repeat.next_s = now_s + self._backoff.delay_s(repeat.tries, self._desk.rng)
        repeat.tries += 1
        failpoint("central.assignment.due")
        yield self._frame(task, record, region, members)

    def _frame(
        self, task: TaskRecord, record: RoundRecord, region: str, members: tuple[str, ...]
    ) -> Outgoing:
        deltas, steps = self._deltas.of(task, record)
        manifest, tail = self._manifests.of(record.base_model_sha256, inline=not deltas)
        graph, digests = self._graph(task)
        references, marks = memories.references(self._desk.store, task, members)
        body = Assignment(
            task=task.task,
            round=record.state.number,
            region=region,
            cohort=members,
            deadline=record.state.deadline_s,
            plan=_plan(task),
            model=manifest,
            graph=graph,
            references=references,
            marks=marks,
            lazy=task.lazy,
            deltas=deltas,
        )
        frame = self._desk.frames.frame(
            _with_settled(body, self._settled_before(task.task, region)),
            task=task.task,
            round_number=record.state.number,
            aud=f"gw/{region}",
            tail=tail + digests + steps,
        )
        return Outgoing(Topic(Kind.TASK, Address.of_gateway(region)), frame)

    def _graph(self, task: TaskRecord) -> tuple[ObjectManifest | None, bytes]:
        sha256 = task.plan.graph_sha256 if task.plan else None
        return (None, b"") if sha256 is None else self._manifests.of(sha256, inline=False)

    def _settled_last(self, region: str) -> tuple[Settlement, ...]:
        """Return what became of the last rounds of tasks that ended: no assignment follows."""
        found: list[Settlement] = []
        for task in self._desk.store.ended_tasks()[: -_MAX_SETTLED - 1 : -1]:
            found += self._settled_before(task.task, region)
        return tuple(found)

    def _settled_before(self, task: str, region: str) -> tuple[Settlement, ...]:
        """Return what became of the updates of a task's last ended round."""
        last = self._desk.store.ended_rounds(task, 1)
        return self._settled(task, last[0].state.number, region) if last else ()

    def _settled(
        self, task: str, number: int, region: str, *, with_moved: bool = False
    ) -> tuple[Settlement, ...]:
        earlier = [
            row
            for row in self._desk.store.contributions(task, number)
            if row.settled
            and (row.region == region or (with_moved and self._region(row.device) == region))
        ]
        if not earlier:
            return ()
        return (
            Settlement(
                task=task,
                round=number,
                counted=tuple(row.device for row in earlier if row.settled == "counted"),
                discarded=tuple(row.device for row in earlier if row.settled == "discarded"),
                reason=next((row.reason for row in earlier if row.reason), None),
            ),
        )

    def _members(self, record: RoundRecord, region: str) -> tuple[str, ...]:
        devices = sorted(record.state.cohort)
        return tuple(d for d in devices if self._region(d) == region)

    def _regions(self, record: RoundRecord) -> tuple[str, ...]:
        found = {self._region(device) for device in record.state.cohort}
        return tuple(sorted(region for region in found if region))

    def _region(self, device: str) -> str | None:
        record = self._desk.store.device(device)
        return record.region if record else None


def _that_fit(settlements: list[Settlement]) -> tuple[Settlement, ...]:
    """Return as many as fit the header, the first in any case; each round once."""
    fitting: dict[RoundKey, Settlement] = {}
    room = 2 * MAX_COHORT
    for one in settlements:
        room -= len(one.counted) + len(one.discarded)
        if (room < 0 and fitting) or len(fitting) == _MAX_ANSWERED:
            break
        fitting.setdefault((one.task, one.round), one)
    return tuple(fitting.values())


def _with_settled(body: Assignment, settled: tuple[Settlement, ...]) -> Assignment:
    """Return an assignment with settlements if its header has room; else devices ask for them."""
    whole = body.model_copy(update={"settled": settled})
    text = whole.model_dump_json(exclude_none=True, exclude_defaults=True)
    return whole if len(text.encode()) <= MAX_HEADER_BYTES - _ENVELOPE_BYTES else body


def _plan(task: TaskRecord) -> TrainingPlan:
    if task.plan is None:
        message = f"task {task.task} has an open round but no plan"
        raise RuntimeError(message)
    asked = task.submission
    return TrainingPlan(
        model=asked.model,
        model_params=asked.model_params,
        input_shape=task.plan.data.shape,
        classes=task.plan.data.classes,
        parameters=task.plan.parameters,
        layout_sha256=task.plan.layout_sha256,
        data=task.plan.data.name,
        training=asked.training,
        codec=asked.codec,
        codec_params=asked.codec_params,
        memory=memories.kind(asked),
        privacy=asked.privacy,
        downlink=asked.downlink,
        requires=asked.requires,
        bids=asked.uplink_budget_bits is not None,
    )
