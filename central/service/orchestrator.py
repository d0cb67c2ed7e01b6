"""Central's handler: every event finds its use case here, inside the loop's transaction."""

from collections.abc import Iterable, Iterator

from central.core import rounds as core
from central.service.announcements import Announcements
from central.service.assignments import Assignments
from central.service.bids import Bids
from central.service.desk import Desk
from central.service.downloads import Downloads
from central.service.giving_up import GivingUp
from central.service.intake import Intake
from central.service.openings import Openings
from central.service.ports import (
    JobDelayed,
    JobFailed,
    ModelEvaluated,
    ModelPrepared,
    RoundAggregated,
    StateDamaged,
    Worker,
)
from central.service.registry import Registry
from central.service.restored import Restored
from central.service.rounds import Rounds
from central.service.uploads import Uploads
from schemas import topics
from schemas.envelope import Frame, decode_frame
from schemas.errors import IdentityError, MessageError
from schemas.messages import ControlNote, DeviceState, Get, JobStatus, Next
from schemas.topics import Kind, Topic
from transport.events import Connected, MessageArrived, Outgoing
from transport.failpoints import failpoint
from transport.retry import Backoff

#: Causes that will not go away: such a device is not asked again for the task.
LASTING_CODES = frozenset({"memory", "data", "model", "policy"})
_TICK_S = 0.5
_PURGE_EVERY_S = 3600.0
_KEEP_PARTS_S = 86_400.0
#: What is retained is told again so often: a broker may have lost it without a word.
_ANNOUNCE_EVERY_S = 300.0


class Orchestrator:
    """The ``Handler`` of central's loop."""

    def __init__(
        self, desk: Desk, worker: Worker, *, keep_task_s: float, was_clean: bool = False
    ) -> None:
        """Begin a new life; the work that was due is taken up with the first connection.

        Args:
            desk: What the use cases share.
            worker: Does the heavy work.
            keep_task_s: How long ended tasks are kept.
            was_clean: Whether the life before this one ended in order.
        """
        self._desk = desk
        self._worker = worker
        self._keep_task_s = keep_task_s
        self._was_clean = was_clean
        self._purge_at_s = 0.0
        self._ticked_s = 0.0
        self._announce_at_s = float("inf")
        self._registry = Registry(desk)
        self._assignments = Assignments(desk, Backoff())
        self._openings = Openings(desk, self._registry, self._assignments)
        bids = Bids()
        self._rounds = Rounds(desk, self._openings, self._assignments, bids)
        self._uploads = Uploads(desk, self._registry, self._rounds, self._assignments, bids)
        self._downloads = Downloads(desk)
        self._announcements = Announcements(desk, self._registry)
        self._intake = Intake(desk, self._rounds, self._openings, self._announcements)
        self._givings_up = GivingUp(desk, self._rounds, self._openings, self._intake)
        self._restored = Restored(desk, self._rounds, self._openings)
        self._is_recovered = False

    def handle(self, event: object, now_s: float) -> Iterable[Outgoing]:
        """Handle one event; what it makes possible (a new round) follows at once."""
        yield from self._restored.take_up(now_s)
        yield from self._dispatch(event, now_s)
        yield from self._uploads.answer_bids(now_s)
        if self._desk.wants_schedule:
            self._desk.wants_schedule = False
            yield from self._openings.schedule(now_s)
        yield from self._announcements.changed(now_s, urgent_only=True)

    def tick(self, now_s: float) -> Iterable[Outgoing]:
        """Let time pass: deadlines, repetitions, tasks that wait for devices."""
        self._ticked_s = now_s
        yield from self._restored.take_up(now_s)
        yield from self._rounds.on_all(core.TimePassed(now_s), now_s)
        yield from self._uploads.answer_bids(now_s)
        yield from self._openings.schedule(now_s)
        yield from self._assignments.due(now_s)
        yield from self._desk.puller.due(now_s)
        yield from self._announcements.changed(now_s, urgent_only=False)
        if now_s >= self._announce_at_s:
            yield from self._announce(now_s)
        yield from self._announcements.parked(now_s)
        if now_s >= self._purge_at_s:
            self._purge_at_s = now_s + _PURGE_EVERY_S
            self._purge(now_s)

    def next_due_s(self, now_s: float) -> float | None:
        """Return when ``tick`` is wanted."""
        return min(self._ticked_s + _TICK_S, now_s + _TICK_S)

    def after_commit(self) -> None:
        """Give the worker the jobs that the transaction made due."""
        self._restored.committed()
        for job in self._desk.take_jobs():
            self._worker.submit(job)
            failpoint("central.job.submitted")
        while self._desk.discarded:
            sha256 = self._desk.discarded.pop()
            if not self._desk.store.is_referred_to(sha256):
                self._desk.objects.remove(sha256)
                failpoint("central.object.discarded")

    def give_up(self, event: object, why: str, now_s: float) -> Iterable[Outgoing]:
        """End what an event was for that could not be handled."""
        yield from self._givings_up.of(event, why, now_s)
        yield from self._announcements.changed(now_s, urgent_only=True)

    def _purge(self, now_s: float) -> None:
        self._desk.discarded += self._desk.store.purge(now_s - self._keep_task_s)
        failpoint("central.tasks.purged")
        self._uploads.expire(now_s)
        self._assignments.forget_ended()
        self._desk.objects.remove_parts(now_s - _KEEP_PARTS_S)

    def _dispatch(self, event: object, now_s: float) -> Iterator[Outgoing]:
        match event:
            case MessageArrived():
                yield from self._on_message(event, now_s)
            case Connected():
                yield from self._on_connected(now_s)
            case ModelPrepared() | RoundAggregated() | ModelEvaluated() | JobFailed():
                yield from self._on_job(event, now_s)
            case JobDelayed(task, reason):
                self._desk.delayed[task] = reason
                self._desk.touch(task)
            case StateDamaged(error):
                raise error
            case _:
                return

    def _on_job(
        self, event: ModelPrepared | RoundAggregated | ModelEvaluated | JobFailed, now_s: float
    ) -> Iterator[Outgoing]:
        self._desk.delayed.clear()  # a job has ended, so the disk is not full
        match event:
            case ModelPrepared():
                yield from self._rounds.on_prepared(event, now_s)
            case RoundAggregated():
                yield from self._rounds.on_aggregated(event, now_s)
            case ModelEvaluated():
                yield from self._rounds.on_evaluated(event, now_s)
            case JobFailed():
                yield from self._rounds.on_failure(event, now_s)

    def _on_connected(self, now_s: float) -> Iterator[Outgoing]:
        self._announcements.connected()
        yield from self._announce(now_s)
        self._assignments.wake(None, now_s)
        if not self._is_recovered:
            self._is_recovered = True
            yield from self._rounds.recover(now_s, was_clean=self._was_clean)
            self._desk.recovered()
        yield from self._assignments.due(now_s)
        yield from self._desk.puller.wake(now_s)

    def _announce(self, now_s: float) -> Iterator[Outgoing]:
        self._announce_at_s = now_s + _ANNOUNCE_EVERY_S
        yield from self._announcements.birth(now_s)

    def _on_message(self, message: MessageArrived, now_s: float) -> Iterator[Outgoing]:
        topic = topics.parse(message.topic_name)
        if topic.kind is Kind.TASK_SUBMIT:
            if not message.retained:  # a retained one would start again on every connect
                yield from self._intake.submit(message.payload, now_s)
        elif topic.kind is Kind.TASK_CONTROL and topic.task is not None:
            yield from self._intake.control(topic.task, message.payload, now_s)
        elif topic.address is not None and topic.address.is_gateway:
            yield from self._on_gateway(topic, topic.address.region, message.payload, now_s)

    def _on_gateway(
        self, topic: Topic, region: str, payload: bytes, now_s: float
    ) -> Iterator[Outgoing]:
        match topic:
            case Topic(kind=Kind.CHUNK, xfer=str(xfer), k=int(k)):
                yield from self._uploads.chunk(region, xfer, k, payload, now_s)
            case Topic(kind=Kind.MANIFEST, xfer=str(xfer)):
                yield from self._uploads.offer(region, xfer, decode_frame(payload), now_s)
            case Topic(kind=Kind.RELAYED, device=str(device)):
                yield from self._on_relayed(region, device, decode_frame(payload), now_s)
            case Topic(kind=Kind.STATE | Kind.NEXT | Kind.GET):
                yield from self._on_node(topic.kind, region, decode_frame(payload), now_s)
            case _:
                return

    def _on_node(self, kind: Kind, region: str, frame: Frame, now_s: float) -> Iterator[Outgoing]:
        gateway = f"gw/{region}"
        if frame.header.src != gateway:
            raise IdentityError(gateway, frame.header.src)
        if kind is Kind.STATE:
            yield from self._on_gateway_state(region, frame, now_s)
        elif kind is Kind.NEXT:
            question = frame.body(Next)
            if self._registry.lacks_birth(region, frame):
                yield self._rebirth(region)
            yield from self._assignments.answer(region, question, frame.header.id, now_s)
        else:
            yield from self._downloads.get(region, frame.body(Get))

    def _rebirth(self, region: str) -> Outgoing:
        """Ask a gateway for its birth, with a boot above the newest that was seen of it."""
        known = self._desk.store.gateway(region)
        note = ControlNote(action="rebirth", boot=known.boot if known else None)
        return self._desk.to_gateway(region, Kind.CONTROL, note)

    def _on_gateway_state(self, region: str, frame: Frame, now_s: float) -> Iterator[Outgoing]:
        if self._registry.is_outdated(region, frame):
            yield self._rebirth(region)
            return
        silent, heard, is_birth = self._registry.gateway_state(region, frame, now_s)
        for device in sorted(silent):
            yield from self._rounds.on_all(core.ClientLost(device), now_s)
        for device in sorted(heard):
            yield from self._rounds.on_all(core.ClientReturned(device), now_s)
        if is_birth:
            self._assignments.wake(region, now_s)
            yield from self._assignments.due(now_s)
            yield from self._desk.puller.wake(now_s)

    def _on_relayed(
        self, region: str, device: str, frame: Frame, now_s: float
    ) -> Iterator[Outgoing]:
        if frame.header.type == DeviceState.TYPE:
            is_online = self._registry.device_state(region, device, frame, now_s)
            if is_online is not None:
                event = core.ClientReturned if is_online else core.ClientLost
                yield from self._rounds.on_all(event(device), now_s)
        elif frame.header.type == JobStatus.TYPE:
            yield from self._on_job_status(device, frame, now_s)
        else:
            message = f"type: {frame.header.type!r} is not relayed"
            raise MessageError(message)

    def _on_job_status(self, device: str, frame: Frame, now_s: float) -> Iterator[Outgoing]:
        if frame.header.src != device:
            raise IdentityError(device, frame.header.src)
        status = frame.body(JobStatus)
        if self._registry.heard(device, frame, now_s):
            yield from self._rounds.on_all(core.ClientReturned(device), now_s)
        self._assignments.answered(status.task, status.round, device)
        if status.state not in ("rejected", "failed"):
            return
        if status.code in LASTING_CODES and self._desk.store.task(status.task) is not None:
            why = f"{status.code}: {status.reason}" if status.reason else status.code
            self._desk.store.add_unwilling(status.task, device, why)
        yield from self._rounds.on_event(
            status.task, status.round, core.ClientFailed(device), now_s
        )
