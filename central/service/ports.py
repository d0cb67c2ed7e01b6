"""What central's use cases need from outside."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from central.core.traffic import Counted
from central.service.records import (
    ContributionRecord,
    DeviceRecord,
    GatewayRecord,
    Refusal,
    RestoreRecord,
    RoundRecord,
    TaskRecord,
)
from schemas.messages import DataDescription, LazyTerms
from schemas.tasks import TaskSubmission
from updates.layout import Layout

F32 = NDArray[np.float32]


class Store(Protocol):
    """Central's memory. Every call belongs to the transaction that the caller has open."""

    def task(self, task: str) -> TaskRecord | None:
        """Return one task."""

    def save_task(self, record: TaskRecord) -> None:
        """Insert or replace one task; its strategy's state is kept."""

    def live_tasks(self) -> list[TaskRecord]:
        """Return the tasks that have not ended, oldest first."""

    def ended_tasks(self) -> list[TaskRecord]:
        """Return the tasks that have ended, oldest first."""

    def tasks_since(self, ended_s: float) -> list[TaskRecord]:
        """Return the tasks that have not ended or have since a time, oldest first."""

    def strategy_state(self, task: str) -> bytes | None:
        """Return the strategy's stored state."""

    def save_strategy_state(self, task: str, state: bytes) -> None:
        """Store the strategy's state."""

    def round(self, task: str, number: int) -> RoundRecord | None:
        """Return one round."""

    def save_round(self, record: RoundRecord) -> None:
        """Insert or replace one round."""

    def ended_rounds(self, task: str, limit: int) -> list[RoundRecord]:
        """Return the newest ended rounds of a task, oldest first."""

    def newest_deltas(self, task: str, before: int, limit: int) -> list[RoundRecord]:
        """Return a task's newest rounds below a number that gave a delta, newest first."""

    def add_contribution(self, record: ContributionRecord) -> bool:
        """Insert one; False when (task, round, device) has one already."""

    def contribution(self, task: str, number: int, device: str) -> ContributionRecord | None:
        """Return one contribution, without its payload."""

    def contributions(self, task: str, number: int) -> list[ContributionRecord]:
        """Return a round's contributions in device order, without payloads."""

    def references(
        self, task: str, devices: Iterable[str], reach: int
    ) -> Mapping[str, tuple[int, str]]:
        """Return the last counted round of each of these devices that has one, and its mark.

        Args:
            task: The task.
            devices: Their ids.
            reach: How many committed rounds are looked back at.
        """

    def settle(self, task: str, number: int, counted: Iterable[str], reason: str) -> None:
        """Mark these devices' contributions counted, and all others of the round discarded."""

    def refusal(self, xfer: str) -> Refusal | None:
        """Return the final no to a transfer, if there was one."""

    def traffic(self, device: str) -> Counted | None:
        """Return up to where a device's bytes are counted; None: none are yet."""

    def save_traffic(self, device: str, counted: Counted) -> None:
        """Store up to where a device's bytes are counted."""

    def add_refusal(self, refusal: Refusal) -> bool:
        """Remember a final no; False when it is known."""

    def late(self, task: str, number: int) -> int:
        """Return how many updates came too late for a round."""

    def unwilling(self, task: str) -> Mapping[str, str]:
        """Return the devices that are not asked again for a task, and why."""

    def add_unwilling(self, task: str, device: str, why: str) -> None:
        """Remember that a device is not to be asked again for a task."""

    def device(self, device: str) -> DeviceRecord | None:
        """Return one device."""

    def devices(self) -> list[DeviceRecord]:
        """Return every device, by id."""

    def whereabouts(self) -> list[tuple[str, str, bool]]:
        """Return every device's id, its region and whether it said to be online."""

    def save_device(self, record: DeviceRecord) -> None:
        """Insert or replace one device."""

    def gateway(self, region: str) -> GatewayRecord | None:
        """Return one gateway."""

    def gateways(self) -> list[GatewayRecord]:
        """Return every gateway, by region."""

    def save_gateway(self, record: GatewayRecord) -> None:
        """Insert or replace one gateway."""

    def is_referred_to(self, sha256: str) -> bool:
        """Tell whether a task, a round or a contribution names an object."""

    def is_model(self, sha256: str) -> bool:
        """Tell whether an object is a task's model or graph, a round's base or its delta."""

    def open_restore(self) -> RestoreRecord | None:
        """Return the newest restore that central has not dealt with, if there is one."""

    def close_restores(self) -> None:
        """Note that central has dealt with every restore."""

    def epoch(self) -> int:
        """Return the number of the newest restore; 0: this database was never restored."""

    def purge(self, before_s: float) -> list[str]:
        """Delete tasks that ended before a time, with all that is theirs, and what is as old.

        Returns:
            The digests of the objects that they named.
        """


class Objects(Protocol):
    """Models and large updates as files named by their SHA-256 (``transport.objects``)."""

    def has(self, sha256: str) -> bool:
        """Tell whether the object is there."""

    def path(self, sha256: str) -> Path:
        """Return where the object is or would be."""

    def remove(self, sha256: str) -> None:
        """Remove the object; one that is not there is no error."""

    def remove_parts(self, before_s: float) -> int:
        """Remove what was begun and not touched since a time; return how many."""


@dataclass(frozen=True, slots=True)
class PrepareModel:
    """Build the first model of a task and store it."""

    task: str
    submission: TaskSubmission
    data: DataDescription


@dataclass(frozen=True, slots=True)
class AggregateRound:
    """Aggregate the frozen contributions of a closed round and store the new model."""

    task: TaskRecord
    round: RoundRecord
    state: bytes | None


@dataclass(frozen=True, slots=True)
class EvaluateModel:
    """Measure a model on the held-out set, if there is one for its data."""

    task: TaskRecord
    round: int


@dataclass(frozen=True, slots=True)
class ExportModel:
    """Write the final model of a task where a person finds it."""

    task: TaskRecord


Job = PrepareModel | AggregateRound | EvaluateModel | ExportModel


@dataclass(frozen=True, slots=True)
class ModelPrepared:
    """The first model of a task stands, durably."""

    task: str
    data: DataDescription
    sha256: str
    size: int
    parameters: int
    layout_sha256: str
    #: The training graph beside it, where the task has one.
    graph_sha256: str | None = None
    graph_bytes: int = 0
    #: Of the forward graph that both were made from.
    forward_key: str | None = None


@dataclass(frozen=True, slots=True)
class RoundAggregated:
    """The new model of a round is stored, durably; it is not yet the task's model."""

    task: str
    round: int
    sha256: str
    state: bytes
    #: What a lazy task's next round is told.
    lazy: LazyTerms | None = None
    #: What leads to it from the round's base, stored too; none: it is sent whole.
    delta_sha256: str | None = None
    delta_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelEvaluated:
    """A model was measured; ``metrics`` is empty when there is nothing to measure it on."""

    task: str
    round: int
    metrics: dict[str, float] = field(default_factory=dict)
    #: Why it could not be measured, if it could not.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job raised; the reason is for the person who submitted the task."""

    job: Job
    reason: str


@dataclass(frozen=True, slots=True)
class JobDelayed:
    """A job waits for space on the disk; it is tried again by itself."""

    task: str
    reason: str


@dataclass(frozen=True, slots=True)
class StateDamaged:
    """A job found central's database damaged; the program must end."""

    error: Exception


JobEvent = ModelPrepared | RoundAggregated | ModelEvaluated | JobFailed | StateDamaged


class Worker(Protocol):
    """Does the heavy work on threads; its results come back as events on the queue."""

    def submit(self, job: Job) -> None:
        """Queue a job; called after the commit that made it due."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a task begins with.

    Attributes:
        layout: The tensors that travel: what is trained, and running statistics.
        vector: Their first values, shape ``(layout.size,)``.
        graph: The training graph as it travels (``learning.graph_file``), or None.
        reason: Why there is no graph, for the person who submitted the task.
        forward_key: Digest of the forward graph that it was made from.
    """

    layout: Layout
    vector: F32
    graph: bytes | None = None
    reason: str | None = None
    forward_key: str | None = None


class Modeler(Protocol):
    """Builds and measures models; it may import torch, on the worker's thread."""

    def check(self, submission: TaskSubmission) -> None:
        """Check a task's model and its parameters by name alone.

        Raises:
            ValueError: The text names the field, the value and what is allowed.
        """

    def prepare(
        self, submission: TaskSubmission, data: DataDescription, scratch: Path
    ) -> Prepared:
        """Return the first parameters of a task's model and its training graph.

        The same task and data always give the same bytes.

        Args:
            submission: What is asked.
            data: The devices' data.
            scratch: An empty directory, removed afterwards.

        Raises:
            ValueError: The model cannot be built for this data.
        """

    def has_evaluation(self, data: DataDescription) -> bool:
        """Tell whether there is a held-out set for such data."""

    def evaluate(
        self,
        submission: TaskSubmission,
        data: DataDescription,
        layout: Layout,
        vector: F32,
        forward_key: str | None = None,
    ) -> dict[str, float]:
        """Return a model's metrics on the held-out set.

        Args:
            submission: What was asked.
            data: The devices' data.
            layout: Of the parameters.
            vector: Their values.
            forward_key: Digest of the forward graph that the task began with, if it is known.

        Raises:
            ValueError: It cannot be measured.
        """


class Exporter(Protocol):
    """Writes a final model for inference; it may take its time, on a thread of its own."""

    def write(
        self,
        submission: TaskSubmission,
        data: DataDescription,
        source: Path,
        target: Path,
        forward_key: str | None = None,
    ) -> None:
        """Write the model in ``source``, a safetensors file, as ONNX to ``target``.

        ``forward_key`` is the digest of the forward graph that the task began with.
        """


class Catalog(Protocol):
    """What a task may name: models, codecs and strategies that are installed and allowed."""

    def check(self, submission: TaskSubmission) -> None:
        """Check the names and the parameters in a task.

        Raises:
            ValueError: The text names the field, the value and what is allowed.
        """

    def has_evaluation(self, data: DataDescription) -> bool:
        """Tell whether there is a held-out set for such data."""
