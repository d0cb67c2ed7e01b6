"""Jobs: loaded, put through the rules of ``core.jobs``, saved, and their instructions done."""

from collections.abc import Collection
from dataclasses import replace

import structlog
from typing_extensions import assert_never

from device_agent.core.job import Job, JobKey, JobState, Refusal
from device_agent.core.job_events import (
    AssignedAgain,
    Cancelled,
    Dropped,
    FindModel,
    Instruction,
    JobEvent,
    ModelArrived,
    ModelAwaited,
    ModelLost,
    OfferAgain,
    Overtaken,
    Receipted,
    Report,
    Restarted,
    StartTraining,
    StopWork,
    UpdateStored,
    WorkFailed,
)
from device_agent.core.jobs import accept, reject, transition
from device_agent.service.downloads import Downloads
from device_agent.service.memories import Memories
from device_agent.service.needs import Needs
from device_agent.service.ports import EncodedUpdate, Work
from device_agent.service.records import JobRecord, JobStore
from device_agent.service.room import Room
from device_agent.service.statuses import Statuses
from device_agent.service.surroundings import Surroundings
from device_agent.service.uploads import Uploads
from schemas.errors import PayloadError
from schemas.messages import Assignment, ReceiptStatus
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.outbox import OutboxEntry
from updates.choice import AUTO

_LOG = structlog.get_logger()
_MAX_TOLD = 64
#: What every job goes through on its way; the log names where jobs begin and how they end.
_PASSING = frozenset({JobState.ACCEPTED, JobState.UPLOADING})
_ENDED_KEPT_S = 30 * 86_400.0


class Jobs:
    """All jobs of this device.

    Attributes:
        has_changed: Whether a job may have begun or ended since this was last set to False.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        statuses: Statuses,
        store: JobStore,
        downloads: Downloads,
        uploads: Uploads,
        room: Room,
        surroundings: Surroundings,
        memories: Memories,
        needs: Needs,
    ) -> None:
        self.has_changed = True
        self._room = room
        self._statuses = statuses
        self._store = store
        self._downloads = downloads
        self._uploads = uploads
        self._surroundings = surroundings
        self._memories = memories
        self._needs = needs

    def assign(self, assignment: Assignment, tail: bytes, now_s: float) -> list[Outgoing]:
        """Take or refuse a job; one that is known is answered with its latest status.

        Raises:
            PayloadError: The objects and their manifests do not fit together.
        """
        key = JobKey(assignment.task, assignment.round)
        known = self._store.get(key)
        if known is not None:
            return self.apply(known, AssignedAgain(), now_s)
        newest = self._store.newest_round(key.task)
        if newest is not None and newest > key.round:
            late = Refusal("superseded", f"round {newest} is here already")
            return self._refuse(assignment, late, now_s)
        outgoing = self._overtake(key, now_s)
        cause = self._surroundings.refusal(assignment, self._busy_with(), now_s)
        cause = cause or self._room.refusal(key, assignment.plan.parameters)
        if cause is not None:
            return [*outgoing, *self._refuse(assignment, cause, now_s)]
        return [*outgoing, *self._accept(assignment, tail, now_s)]

    def apply(self, record: JobRecord, event: JobEvent, now_s: float) -> list[Outgoing]:
        """Put one job through one event."""
        job, instructions = transition(record.job, event)
        return self._go_on(record, job, instructions, now_s)

    def object_arrived(self, sha256: str, now_s: float) -> list[Outgoing]:
        """Go on with the jobs that waited for a model or graph and now have all they need."""
        waiting = [one for one in self._needs.waiting_for(sha256) if not self._needs.missing(one)]
        failpoint("device.model.arrived")
        return [out for one in waiting for out in self.apply(one, ModelArrived(), now_s)]

    def object_failed(self, sha16: str, reason: str, now_s: float) -> list[Outgoing]:
        """Give up the jobs whose model or graph is not what its manifest says.

        Without a delta that is not, a job pulls its whole model instead.
        """
        event = WorkFailed(Refusal("model", reason))
        outgoing: list[Outgoing] = []
        for one in self._needs.waiting_for(sha16):
            if any(delta.object.sha256.startswith(sha16) for delta in one.deltas):
                outgoing += self._without_deltas(one, reason, now_s)
            else:
                outgoing += self.apply(one, event, now_s)
        return outgoing

    def rebuild_failed(self, key: JobKey, reason: str, now_s: float) -> list[Outgoing]:
        """Pull a job's whole model: its deltas did not give it."""
        record = self._in_training(key)
        return [] if record is None else self._without_deltas(record, reason, now_s)

    def worked(self, key: JobKey, event: JobEvent, now_s: float) -> list[Outgoing]:
        """Put a job through what the training thread tells of it."""
        record = self._in_training(key)
        return [] if record is None else self.apply(record, event, now_s)

    def paused(self, key: JobKey, reason: str | None, now_s: float) -> None:
        """Say that a job's training waits, and why; None: that it goes on."""
        record = self._in_training(key)
        if record is None:
            return
        _LOG.info("training_paused" if reason else "training_goes_on", task=key.task, why=reason)
        self._statuses.hold(key, reason)
        self._statuses.put(record.job, now_s)

    def trained(self, key: JobKey, update: EncodedUpdate, now_s: float) -> list[Outgoing]:
        """Store a job's update for the upload."""
        record = self._in_training(key)
        if record is None:
            self._discard(update)
            return []
        self._tell_choice(key, update)
        xfer = self._store_update(record, update, now_s)
        failpoint("device.update.stored")
        self._statuses.hold(key, self._uploads.why_held())
        if xfer is None:
            lost = WorkFailed(Refusal("storage", "the update's file is gone"))
            return self.apply(record, lost, now_s)
        stored = self.apply(record, UpdateStored(xfer), now_s)
        return [*stored, *self._make_room(now_s), *self._uploads.due(now_s)]

    def receipted(self, entry: OutboxEntry, status: ReceiptStatus, now_s: float) -> list[Outgoing]:
        """End the job whose update has its final receipt, and keep what the receipt says."""
        self.has_changed = True
        record = self._store.get(JobKey(entry.task, entry.round_number))
        failpoint("device.job.receipted")
        if record is None:
            return []
        job, instructions = transition(record.job, Receipted())
        # A refusal settles the update: it will be in no aggregate.
        settled = "discarded" if status in {"late", "rejected"} else record.settled
        record = replace(record, job=job, receipt=status, settled=settled)
        self._save(record)
        self._statuses.hold(record.key, None)
        return self._do_all(record, instructions, now_s)

    def cancel(self, task: str, now_s: float) -> list[Outgoing]:
        """Stop all jobs of a task."""
        records = self._store.of_task(task)
        self._memories.forget(task)
        self.has_changed = True  # their files go after the commit
        failpoint("device.job.cancelled")
        return [out for record in records for out in self.apply(record, Cancelled(), now_s)]

    def drop(self, unwanted: Collection[JobKey], now_s: float) -> list[Outgoing]:
        """Stop jobs that have ended elsewhere."""
        found = [self._store.get(key) for key in unwanted]
        ended = Overtaken("the round has ended")
        failpoint("device.jobs.dropped")
        return [out for one in found if one for out in self.apply(one, ended, now_s)]

    def resume(self, now_s: float, *, was_clean: bool) -> None:
        """Begin again, after a restart, with what was not yet trained; nothing is sent yet."""
        self._store.forget_ended(now_s - _ENDED_KEPT_S)
        self._memories.tidy_up()
        for record in self._store.active():
            self.apply(record, Restarted(was_clean), now_s)
        self._make_room(now_s)
        failpoint("device.jobs.resumed")

    def tell(self, now_s: float) -> None:
        """Say again how far each job is that goes on."""
        for key in self._store.unfinished(_MAX_TOLD):
            record = self._store.get(key)
            if record is not None:
                if record.job.state is JobState.UPLOADING:
                    self._statuses.hold(key, self._uploads.why_held())
                self._statuses.put(record.job, now_s)

    def work(self) -> Work | None:
        """Return what the training thread should have in hand."""
        for record in self._store.active():
            if record.job.state is JobState.TRAINING:
                return self._with_memory(self._needs.work_of(record), record)
        return None

    def memory_objects(self) -> frozenset[str]:
        """Return the SHA-256 of each memory that is an object."""
        return self._memories.objects()

    def _store_update(self, record: JobRecord, update: EncodedUpdate, now_s: float) -> str | None:
        """Store an update and what it leaves for the next round; None: a file of theirs is gone.

        A memory without its update does no harm: its round is never counted.
        """
        memory = update.memory
        if memory is not None and not self._memories.keep(record.key, memory):
            self._discard(update)
            return None
        clock = self._store.bids_lost(record.key.task, record.key.round)
        return self._uploads.add(record, update, clock, now_s)

    def _tell_choice(self, key: JobKey, update: EncodedUpdate) -> None:
        if update.choice is not None and update.choice_reason is not None:
            label, reason = update.choice.label, update.choice_reason
            _LOG.info("codec_chosen", task=key.task, round=key.round, codec=label, reason=reason)
            self._statuses.explain(key, label, reason)

    def _discard(self, update: EncodedUpdate) -> None:
        self._uploads.discard(update)
        if update.memory is not None:
            self._memories.discard(update.memory)

    def _accept(self, assignment: Assignment, tail: bytes, now_s: float) -> list[Outgoing]:
        if fault := assignment.fault(len(tail)):
            raise PayloadError(fault)
        own, graph_digests = assignment.split(tail)
        model, digests = self._downloads.admit(assignment.model, own)
        deltas, delta_digests = self._needs.admit_deltas(assignment, tail)
        failpoint("device.job.admitted")
        job, instructions = accept(JobKey(assignment.task, assignment.round))
        plan = self._surroundings.cut(assignment.plan)
        record = JobRecord(
            job,
            plan,
            model,
            digests,
            assignment.deadline,
            created_s=now_s,
            graph=assignment.graph,
            graph_digests=graph_digests,
            reference=self._memories.take_up(assignment),
            lazy=assignment.lazy,
            deltas=deltas,
            delta_digests=delta_digests,
        )
        return self._begin(record, instructions, now_s)

    def _refuse(self, assignment: Assignment, cause: Refusal, now_s: float) -> list[Outgoing]:
        job, instructions = reject(JobKey(assignment.task, assignment.round), cause)
        model = assignment.model.model_copy(update={"inline": False})
        record = JobRecord(job, assignment.plan, model, b"", assignment.deadline, created_s=now_s)
        return self._begin(record, instructions, now_s)

    def _overtake(self, key: JobKey, now_s: float) -> list[Outgoing]:
        event = Overtaken(f"round {key.round} is here")
        older = self._store.of_task(key.task)
        failpoint("device.job.overtaken")
        return [out for record in older for out in self.apply(record, event, now_s)]

    def _make_room(self, now_s: float) -> list[Outgoing]:
        dropped = [(self._store.get(key), reason) for key, reason in self._room.make()]
        return [out for one, why in dropped if one for out in self.apply(one, Dropped(why), now_s)]

    def _busy_with(self) -> str | None:
        return next((record.key.task for record in self._store.active()), None)

    def _in_training(self, key: JobKey) -> JobRecord | None:
        record = self._store.get(key)
        in_training = record is not None and record.job.state is JobState.TRAINING
        return record if in_training else None

    def _begin(
        self, record: JobRecord, instructions: tuple[Instruction, ...], now_s: float
    ) -> list[Outgoing]:
        self._save(record)
        return self._do_all(record, instructions, now_s)

    def _go_on(
        self, record: JobRecord, job: Job, instructions: tuple[Instruction, ...], now_s: float
    ) -> list[Outgoing]:
        if job != record.job:
            record = replace(record, job=job)
            self._save(record)
        return self._do_all(record, instructions, now_s)

    def _save(self, record: JobRecord) -> None:
        self._store.save(record)
        failpoint("device.job.saved")
        self.has_changed = True
        key, cause = record.key, record.job.cause
        log = _LOG.debug if record.job.state in _PASSING else _LOG.info
        log(
            "job_changed",
            task=key.task,
            round=key.round,
            state=record.job.state.value,
            code=cause.code if cause else None,
            reason=cause.reason if cause else None,
            receipt=record.receipt,
        )

    def _do_all(
        self, record: JobRecord, instructions: tuple[Instruction, ...], now_s: float
    ) -> list[Outgoing]:
        return [out for one in instructions for out in self._do(record, one, now_s)]

    def _do(self, record: JobRecord, instruction: Instruction, now_s: float) -> list[Outgoing]:
        match instruction:
            case Report(progress):
                self._statuses.put(record.job, now_s, progress)
                return []
            case FindModel():
                return self._find_model(record, now_s)
            case OfferAgain():
                return self._uploads.wake(now_s)
            case StartTraining() | StopWork():
                return []  # the training thread is told after the commit: see ``work``
            case _:
                assert_never(instruction)

    def _find_model(self, record: JobRecord, now_s: float) -> list[Outgoing]:
        begun = [
            self._downloads.begin(manifest, digests, now_s, is_cast=record.is_cast(manifest))
            for manifest, digests in self._needs.missing(record)
        ]
        is_whole = all(progress.completed is not None for progress in begun)
        event = ModelArrived() if is_whole else ModelAwaited()
        asked = [out for progress in begun for out in progress.outgoing]
        return [*self.apply(record, event, now_s), *asked]

    def _with_memory(self, work: Work, record: JobRecord) -> Work:
        return replace(
            work,
            reference=record.reference,
            memory=self._memories.of(record.key.task, record.reference),
            lazy=record.lazy,
            rate_bytes_s=self._uploads.rate_bytes_s() if record.plan.codec == AUTO else None,
        )

    def _without_deltas(self, record: JobRecord, reason: str, now_s: float) -> list[Outgoing]:
        _LOG.warning(
            "deltas_left_out", task=record.key.task, round=record.key.round, reason=reason
        )
        record = replace(record, deltas=(), delta_digests=b"")
        self._save(record)
        return self.apply(record, ModelLost(), now_s)
