"""What every use case of central shares: its tables, its pen, and what is due after the commit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from central.core.rounds import Phase
from central.service.metering import Meter, NoMeter
from central.service.ports import Catalog, Job, Objects, PrepareModel, Store
from central.service.records import RoundRecord, TaskRecord
from schemas.base import WireMessage
from schemas.messages import ControlNote, Receipt
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.frames import FrameWriter
from transport.parking import ParkedSummary, nothing_parked
from transport.puller import Puller
from updates.layout import Layout


@dataclass(slots=True)
class Desk:
    """Shared by the use cases of one process.

    Attributes:
        store: Central's tables.
        objects: Models and large updates by digest.
        catalog: What tasks may name.
        frames: Writes frames in central's name.
        puller: Fetches large updates from the gateways.
        rng: For jitter; never for anything that is stored.
        min_clients: For tasks that do not say.
        boot: This start of central.
    """

    store: Store
    objects: Objects
    catalog: Catalog
    frames: FrameWriter
    puller: Puller
    rng: np.random.Generator
    min_clients: int
    boot: int
    #: How to read the layout of a model's file.
    read_layout: Callable[[Path], Layout]
    #: Jobs for the worker, to be queued once the transaction is committed.
    jobs: list[Job] = field(default_factory=list)
    #: Tasks whose status changed; True: say so at once, False: with the next tick.
    changed: dict[str, bool] = field(default_factory=dict)
    #: Objects that no row may need any more; looked at and removed after the commit.
    discarded: list[str] = field(default_factory=list)
    #: Tasks whose job waits for the disk, and why; not worth a place on that disk.
    delayed: dict[str, str] = field(default_factory=dict)
    #: Whether a round might now be opened.
    wants_schedule: bool = False
    #: Asked for the messages that could not be handled.
    parked: Callable[[], ParkedSummary] = nothing_parked
    #: Counts for those who watch central.
    meter: Meter = field(default_factory=NoMeter)
    _layouts: dict[str, Layout] = field(default_factory=dict)
    #: Tasks whose jobs this life has begun; of use until it has taken up what was due before.
    _in_hand: set[str] | None = field(default_factory=set)

    def touch(self, task: str, *, urgent: bool = True) -> None:
        """Note that a task's status changed."""
        self.changed[task] = urgent or self.changed.get(task, False)

    def task(self, task: str) -> TaskRecord:
        """Return a task that is known to exist.

        Raises:
            RuntimeError: It does not; a caller's mistake.
        """
        record = self.store.task(task)
        if record is None:
            message = f"task {task} is not in the store"
            raise RuntimeError(message)
        return record

    def save_task(self, task: TaskRecord) -> None:
        """Save a task; its status is told, and rounds may become possible."""
        self.store.save_task(task)
        self.touch(task.task)
        self.wants_schedule = True

    def layout(self, task: TaskRecord) -> Layout:
        """Return the layout of a task's model, read once from the model's file."""
        if task.plan is None or task.model_sha256 is None:
            message = f"task {task.task} has no model yet"
            raise RuntimeError(message)
        digest = task.plan.layout_sha256
        if digest not in self._layouts:
            path = self.objects.path(task.model_sha256)
            self._layouts[digest] = self.read_layout(path)
        return self._layouts[digest]

    def open_round(self, task: TaskRecord) -> RoundRecord | None:
        """Return the round of a task that has not ended, reporting or aggregating."""
        if task.progress.step != "round":
            return None
        record = self.store.round(task.task, task.progress.round)
        return record if record is not None and not record.state.has_ended else None

    def reporting_round(self, task: TaskRecord) -> RoundRecord | None:
        """Return the round of a task in which updates are awaited."""
        record = self.open_round(task)
        if record is None or record.state.phase is not Phase.REPORTING:
            return None
        return record

    def take_jobs(self) -> list[Job]:
        """Return the jobs that are due and forget them here."""
        jobs, self.jobs = self.jobs, []
        if self._in_hand is not None:
            self._in_hand.update(map(_task_of, jobs))
        return jobs

    def is_in_hand(self, task: str) -> bool:
        """Tell whether a job of a task was begun in this life, before ``recovered``."""
        return task in (self._in_hand or ()) or task in map(_task_of, self.jobs)

    def recovered(self) -> None:
        """Note that what was due when central stopped is taken up."""
        self._in_hand = None

    def to_gateway(
        self,
        region: str,
        kind: Kind,
        body: WireMessage,
        *,
        xfer: str | None = None,
        corr: str | None = None,
    ) -> Outgoing:
        """Return a frame for one region's gateway."""
        topic = Topic(kind, Address.of_gateway(region), xfer=xfer)
        return Outgoing(topic, self.frames.frame(body, aud=f"gw/{region}", corr=corr))

    def receipt(self, region: str, receipt: Receipt) -> Outgoing:
        """Return a receipt for the sender of one transfer."""
        self.meter.receipted(receipt)
        return self.to_gateway(region, Kind.RECEIPT, receipt, xfer=receipt.xfer)

    def cancel(self, task: str) -> Iterator[Outgoing]:
        """Tell every gateway that a task has ended, so that its devices stop working for it."""
        note = ControlNote(action="cancel", task=task)
        for gateway in self.store.gateways():
            yield self.to_gateway(gateway.region, Kind.CONTROL, note)


def _task_of(job: Job) -> str:
    return job.task if isinstance(job, PrepareModel) else job.task.task
