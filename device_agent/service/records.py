"""Jobs as they are stored, and the port of their store."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from device_agent.core.job import Job, JobKey
from device_agent.core.link import Upload
from device_agent.core.quota import Owed
from device_agent.service.ports import Memory
from schemas.messages import (
    LazyTerms,
    ModelDelta,
    ObjectManifest,
    ReceiptStatus,
    TrainingPlan,
    cut_tail,
)

Outcome = Literal["counted", "discarded"]


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job with all that is needed to do it, or to do it again after a crash.

    Attributes:
        job: Where it stands.
        plan: What to train, already cut down to the owner's policy.
        model: The global model to begin from; never inline, see ``digests``.
        digests: SHA-256 of each of the model's chunks, 32 bytes each.
        deadline_s: Central's clock, unix seconds; for information only.
        created_s: When the assignment came, unix seconds.
        settled: What became of the update, once central has said so.
        receipt: Status of the update's final receipt, stored as its outbox row is removed.
        graph: The task's training graph, where it has one, with its chunks' digests.
        reference: The round whose memory it builds on; 0: on none.
        lazy: What central told for the rule of skipping, in a lazy task.
        deltas: What leads from older models to this one, the oldest first; never inline.
        delta_digests: SHA-256 of each of their chunks, one delta after another.
    """

    job: Job
    plan: TrainingPlan
    model: ObjectManifest
    digests: bytes
    deadline_s: float
    created_s: float
    settled: Outcome | None = None
    receipt: ReceiptStatus | None = None
    graph: ObjectManifest | None = None
    graph_digests: bytes = b""
    reference: int = 0
    lazy: LazyTerms | None = None
    deltas: tuple[ModelDelta, ...] = ()
    delta_digests: bytes = b""

    @property
    def key(self) -> JobKey:
        """Task and round."""
        return self.job.key

    def is_cast(self, manifest: ObjectManifest) -> bool:
        """Tell whether gateways multicast an object unasked: of model and deltas the newest."""
        left_out = [self.model, *(one.object for one in self.deltas)][:-1]
        return manifest not in left_out

    def digests_of(self, delta: ModelDelta) -> bytes:
        """Return the digests of one delta's chunks."""
        objects = [one.object for one in self.deltas]
        return cut_tail(objects, self.delta_digests)[self.deltas.index(delta)]


class JobStore(Protocol):
    """Jobs on disk; every method runs inside the caller's transaction."""

    def get(self, key: JobKey) -> JobRecord | None:
        """Return one job, or None."""

    def save(self, record: JobRecord) -> None:
        """Insert a job, or replace what is stored of it."""

    def active(self) -> list[JobRecord]:
        """Return the jobs whose update does not exist yet, oldest first."""

    def unfinished(self, limit: int) -> list[JobKey]:
        """Return the jobs that have not ended, newest first."""

    def of_task(self, task: str) -> list[JobRecord]:
        """Return the jobs of a task that have not ended, oldest first."""

    def newest_round(self, task: str) -> int | None:
        """Return the newest round known of a task, ended or not."""

    def bids_lost(self, task: str, before_round: int) -> int:
        """Return how many updates in a row, before a round of a task, were not accepted."""

    def settle(self, task: str, round_number: int, outcome: Outcome) -> None:
        """Note what became of an update; a job that is not known is no error."""

    def unsettled(self, limit: int) -> list[JobKey]:
        """Return the delivered jobs of which it is not known what became, newest first."""

    def newest_graphs(self, limit: int) -> list[ObjectManifest]:
        """Return the training graphs of the newest jobs, newest first, cancelled ones left out."""

    def newest_models(self, limit: int) -> list[tuple[str, ObjectManifest]]:
        """Return task and model of the newest jobs whose task sends deltas, newest first.

        Cancelled ones are left out.
        """

    def offered_objects(self) -> Collection[str]:
        """Return the SHA-256 of every object that an outbox row offers."""

    def owed(self) -> list[Owed]:
        """Return the updates in the outbox, without their frames."""

    def forget_ended(self, before_s: float) -> int:
        """Remove ended jobs that came before ``before_s``; return how many."""


class MemoryStore(Protocol):
    """Memories on disk; every method runs inside the caller's transaction."""

    def get(self, key: JobKey) -> Memory | None:
        """Return what a round has left, or None."""

    def save(self, key: JobKey, memory: Memory) -> None:
        """Insert or replace what a round has left."""

    def keep_only(self, key: JobKey) -> None:
        """Remove what all other rounds of the task have left."""

    def forget(self, task: str) -> None:
        """Remove all of a task."""

    def keep_newest(self, tasks: int) -> None:
        """Remove all but what the tasks have left that saved last, so many of them."""

    def objects(self) -> Collection[str]:
        """Return the SHA-256 of every memory that is an object."""


class UploadTimes(Protocol):
    """What the last uploads took; every method runs inside the caller's transaction."""

    def add(self, upload: Upload) -> None:
        """Remember one upload, and forget those that are too many."""

    def recent(self) -> Sequence[Upload]:
        """Return the uploads that are remembered, the oldest first."""
