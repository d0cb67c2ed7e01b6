"""The agent: what each message, each result and the passing of time change."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from device_agent.core.graphs import GRAPHS_LOOKED_AT, graphs_to_keep
from device_agent.core.job import JobKey, JobState, Refusal
from device_agent.core.job_events import Progressed, WorkFailed
from device_agent.service.births import Births
from device_agent.service.downloads import Downloads
from device_agent.service.jobs import Jobs
from device_agent.service.needs import Needs
from device_agent.service.ports import (
    Boots,
    RebuildFailed,
    TrainingFailed,
    TrainingFinished,
    TrainingPaused,
    TrainingProgressed,
    Worker,
)
from device_agent.service.questions import Questions
from device_agent.service.records import JobStore
from device_agent.service.settlements import settle
from device_agent.service.statuses import Statuses
from device_agent.service.surroundings import Surroundings
from device_agent.service.traffic import WorkTraffic
from device_agent.service.uploads import Uploads
from device_agent.service.wire import Wire
from schemas.envelope import Frame, decode_frame
from schemas.errors import IdentityError
from schemas.messages import Assignment, ControlNote, Need, NoJob, Receipt
from schemas.topics import Address, Kind, Topic, parse
from transport.assembly import ObjectMismatchError
from transport.events import Connected, Disconnected, MessageArrived, Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectStore

#: Why a device is offline, when its broker has to say it.
LOST = "connection lost"
WorkDone = TrainingProgressed | TrainingFinished | TrainingFailed | RebuildFailed
_MAX_WHY = 400


@dataclass(frozen=True, slots=True)
class Parts:
    """What the agent is made of, named by the composition root.

    Attributes:
        set_will: Replaces the session's Will, which carries the boot, from the next connection on.
        graph_bytes: Most bytes of training graphs, and of models that deltas will need, kept for
            rounds to come.
    """

    wire: Wire
    births: Births
    questions: Questions
    statuses: Statuses
    jobs: Jobs
    needs: Needs
    downloads: Downloads
    uploads: Uploads
    surroundings: Surroundings
    traffic: WorkTraffic
    store: JobStore
    objects: ObjectStore
    worker: Worker
    boots: Boots
    set_will: Callable[[Outgoing], None]
    graph_bytes: int


class Agent:
    """Handles the events of ``transport.loop.ServiceLoop``.

    All that must outlive this process is in the database; what is kept here is only when to do
    what, so an event that is handled twice does no harm.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._is_connected = False

    def resume(self, now_s: float, *, was_clean: bool = False) -> None:
        """Go on after a restart; called once, in a transaction, before the first event.

        Args:
            now_s: Now, unix seconds.
            was_clean: Whether the life before this one ended in order.
        """
        self._parts.jobs.resume(now_s, was_clean=was_clean)

    def farewell(self) -> Outgoing:
        """Return the word that this device goes offline on purpose."""
        return self._parts.births.death("stopped")

    def handle(self, event: object, now_s: float) -> Iterable[Outgoing]:
        """Handle one event of the session or of the training thread.

        Raises:
            WireError: A message breaks the contract.
        """
        match event:
            case MessageArrived(topic_name=name, payload=payload):
                return self._message(name, payload, now_s)
            case TrainingPaused(key, reason):
                self._parts.jobs.paused(key, reason, now_s)
                return []
            case TrainingProgressed() | TrainingFinished() | TrainingFailed() | RebuildFailed():
                return self._worked(event, now_s)
            case Connected():
                return self._connected(now_s)
            case Disconnected():
                self._is_connected = False
                return []
            case _:
                return []

    def tick(self, now_s: float) -> Iterable[Outgoing]:
        """Return what is due: heartbeat, question, offers, requests for chunks."""
        parts = self._parts
        if not self._is_connected:
            return []
        beat = parts.births.due(now_s)
        if beat:
            parts.traffic.heartbeat(is_idle=not parts.store.unfinished(1))
        return [
            *beat,
            *parts.questions.due(now_s),
            *parts.statuses.due(now_s),
            *parts.uploads.due(now_s),
            *parts.downloads.due(now_s),
        ]

    def next_due_s(self, now_s: float) -> float | None:  # noqa: ARG002 - the loop's port
        """Return when ``tick`` is needed next."""
        parts = self._parts
        if not self._is_connected:
            return None
        moments = (
            parts.births.next_heartbeat_s,
            parts.questions.next_s,
            parts.statuses.next_due_s(),
            parts.uploads.next_due_s(),
            parts.downloads.next_due_s(),
        )
        return min(moment for moment in moments if moment is not None)

    def after_commit(self) -> None:
        """Make training thread, pulls and files agree with what was committed."""
        parts = self._parts
        parts.statuses.committed()
        if not parts.jobs.has_changed:
            return
        parts.worker.assign(parts.jobs.work())
        failpoint("device.work.assigned")
        wanted = parts.needs.wanted()
        parts.downloads.forget_all_but(wanted)
        newest = [*parts.needs.models_to_keep(), *parts.store.newest_graphs(GRAPHS_LOOKED_AT)]
        graphs = graphs_to_keep(newest, parts.graph_bytes)
        offered, memories = parts.store.offered_objects(), parts.jobs.memory_objects()
        parts.objects.keep_only({*wanted, *graphs, *offered, *memories})
        failpoint("device.files.trimmed")
        parts.jobs.has_changed = False

    def give_up(self, event: object, why: str, now_s: float) -> Iterable[Outgoing]:
        """End the job whose result could not be handled; messages are sent again by others."""
        if not isinstance(event, TrainingFinished | TrainingFailed):
            return []
        cause = Refusal("training", f"its result could not be handled: {why}"[:_MAX_WHY])
        return self._parts.jobs.worked(event.key, WorkFailed(cause), now_s)

    def _worked(self, event: WorkDone, now_s: float) -> list[Outgoing]:
        jobs = self._parts.jobs
        match event:
            case TrainingProgressed(key, share):
                return jobs.worked(key, Progressed(share), now_s)
            case TrainingFinished(key, update):
                return jobs.trained(key, update, now_s)
            case TrainingFailed(key, cause):
                return jobs.worked(key, WorkFailed(cause), now_s)
            case RebuildFailed(key, reason):
                return jobs.rebuild_failed(key, reason, now_s)

    def _connected(self, now_s: float) -> list[Outgoing]:
        parts = self._parts
        self._is_connected = True
        parts.jobs.tell(now_s)
        failpoint("device.birth.due")
        return [
            parts.births.birth(now_s),
            *parts.questions.begin(now_s),
            *parts.uploads.wake(now_s),
            *parts.downloads.wake(now_s),
        ]

    def _message(self, name: str, payload: bytes, now_s: float) -> list[Outgoing]:
        topic = parse(name)
        self._check_place(topic)
        if topic.kind is Kind.BLOCK:
            return self._block(topic, payload, now_s)
        frame = decode_frame(payload)
        self._check_source(frame)
        match topic.kind:
            case Kind.TASK:
                return self._task(topic, frame, now_s)
            case Kind.NEED:
                return self._parts.uploads.on_need(frame.body(Need), now_s)
            case Kind.RECEIPT:
                return self._receipt(frame.body(Receipt), now_s)
            case Kind.CONTROL:
                return self._control(frame.body(ControlNote), now_s)
            case _:
                return []

    def _task(self, topic: Topic, frame: Frame, now_s: float) -> list[Outgoing]:
        if frame.header.type == Assignment.TYPE:
            return self._assignment(topic, frame, now_s)
        if frame.header.type == NoJob.TYPE:
            return self._no_job(frame, now_s)
        return []

    def _assignment(self, topic: Topic, frame: Frame, now_s: float) -> list[Outgoing]:
        own = self._parts.wire.address
        assignment = frame.body(Assignment)
        settle(self._parts.store, own.node, assignment.settled)
        if assignment.region != own.region or own.node not in assignment.cohort:
            return []
        if topic.address == own:
            self._parts.questions.answered(now_s)
        self._parts.traffic.busy()
        outgoing = self._parts.jobs.assign(assignment, frame.tail, now_s)
        self._mind_downloads(now_s)
        return outgoing

    def _no_job(self, frame: Frame, now_s: float) -> list[Outgoing]:
        answer = frame.body(NoJob)
        settle(self._parts.store, self._parts.wire.address.node, answer.settled)
        held = self._parts.questions.held_at(frame.header.corr)
        if held is None:
            return []
        self._parts.questions.answered(now_s)
        keep = {JobKey(ref.task, ref.round) for ref in answer.keep}
        outgoing = self._parts.jobs.drop(held - keep, now_s)
        self._mind_downloads(now_s)
        return outgoing

    def _mind_downloads(self, now_s: float) -> None:
        active = self._parts.store.active()
        if any(record.job.state is JobState.DOWNLOADING for record in active):
            self._parts.questions.hasten(now_s)

    def _block(self, topic: Topic, payload: bytes, now_s: float) -> list[Outgoing]:
        try:
            progress = self._parts.downloads.block(topic, payload, now_s)
        except ObjectMismatchError as error:
            return self._parts.jobs.object_failed(topic.sha16 or "", str(error), now_s)
        if progress.completed is None:
            return list(progress.outgoing)
        arrived = self._parts.jobs.object_arrived(progress.completed, now_s)
        return [*progress.outgoing, *arrived]

    def _receipt(self, receipt: Receipt, now_s: float) -> list[Outgoing]:
        removed = self._parts.uploads.on_receipt(receipt, now_s)
        ended = self._parts.jobs.receipted(removed, receipt.status, now_s) if removed else []
        return [*ended, *self._parts.uploads.due(now_s)]

    def _control(self, note: ControlNote, now_s: float) -> list[Outgoing]:
        match note.action:
            case "rebirth":
                return [self._rebirth(note.boot, now_s)]
            case "cancel":
                return self._parts.jobs.cancel(note.task, now_s) if note.task else []
            case "drain":
                self._parts.surroundings.is_draining = True
                return []

    def _rebirth(self, seen: int | None, now_s: float) -> Outgoing:
        parts = self._parts
        if seen is not None:
            boot, parts.wire.frames.boot = parts.wire.frames.boot, parts.boots.adopt(seen)
            failpoint("device.boot.adopted")
            if boot != parts.wire.frames.boot:
                parts.traffic.new_boot()
            parts.set_will(parts.births.death(LOST))
        return parts.births.birth(now_s)

    def _check_place(self, topic: Topic) -> None:
        own = self._parts.wire.address
        if topic.address not in {own, Address.of_everyone(own.region)}:
            raise IdentityError(own.prefix, str(topic.address))

    def _check_source(self, frame: Frame) -> None:
        gateway = f"gw/{self._parts.wire.address.region}"
        if frame.header.src not in {gateway, "central"}:
            raise IdentityError(gateway, frame.header.src)
