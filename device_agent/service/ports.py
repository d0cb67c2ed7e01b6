"""What the agent's use cases need from outside: a trainer, a data source, the device itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_agent.core.job import JobKey, Refusal
from learning.data.dataset import Dataset
from schemas.messages import Capabilities, LazyTerms, ObjectManifest, TrainingPlan
from updates.choice import Candidate
from updates.layout import Layout

F32 = NDArray[np.float32]


class TrainingError(Exception):
    """A job could not be trained; the reason is told to the person who submitted the task."""


class TrainingStoppedError(TrainingError):
    """Training ended early because ``should_stop`` said so."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One job, ready to train.

    Attributes:
        plan: What central asks, already cut down to the device's own policy.
        layout: Names and shapes of the model's parameters.
        parameters: The global model, shape ``(layout.size,)``; must not be written to.
        data: The device's examples.
        round_seed: Differs by task, round and device; the same when a job is repeated.
        graph: The file of the task's training graph, as it travelled, where the job needs it.
        state: What ``TrainingResult.state`` was after the task's round before, where it is kept.
    """

    plan: TrainingPlan
    layout: Layout
    parameters: F32
    data: Dataset
    round_seed: int
    graph: Path | None = None
    state: F32 | None = None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training gave.

    Attributes:
        delta: New parameters minus the global ones, shape ``(layout.size,)``.
        num_examples: Distinct examples trained on.
        metrics: Mean training loss, accuracy, as measured while training.
        state: The optimizer's, where ``training.keep_state`` asks for it; its form is the
            trainer's own.
    """

    delta: F32
    num_examples: int
    metrics: dict[str, float] = field(default_factory=dict)
    state: F32 | None = None


class Trainer(Protocol):
    """Trains one job on this device."""

    backend: str

    def train(
        self,
        request: TrainingRequest,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        """Train and return the update.

        Args:
            request: The job.
            progress: Called with the share done, 0 to 1, after every epoch or some steps.
            should_stop: Asked after every step.

        Raises:
            TrainingStoppedError: ``should_stop`` said so.
            TrainingError: The model cannot be built, does not fit the data, or diverged.
        """


@dataclass(frozen=True, slots=True)
class Memory:
    """What a round of this device has left for the next one: a vector, and two numbers beside it.

    Attributes:
        sha256: Of the vector as float32, little endian.
        payload: The vector's bytes when they are few; else they are an object, or ``file``.
        file: Where they lie before the store takes them over: a file that is on disk.
        error: In a lazy task, squared norm of what the last quantization left out.
        clock: In a lazy task, how often in a row the device has skipped.
        mark: Which update has left it, as ``schemas.ids.contribution_mark`` says.
    """

    sha256: str
    payload: bytes | None = None
    file: Path | None = None
    error: float = 0.0
    clock: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """One job for the training thread.

    Attributes:
        key: Task and round.
        plan: What to train.
        model_sha256: The global model, in the object store.
        backend: What to train with.
        graph_sha256: The training graph, in the object store, where the job needs it.
        reference: The round whose memory the job builds on; 0: on none.
        memory: That memory.
        lazy: What central told for the rule of skipping, in a lazy task.
        rate_bytes_s: What the link carried at least, of late; None: not known.
        base_sha256: The model that ``deltas`` begin from, where the model is not here yet.
        deltas: What makes the model of it, in the object store, the oldest first.
        start: How often the job was begun; the same job with another start is other work.
    """

    key: JobKey
    plan: TrainingPlan
    model_sha256: str
    backend: str
    graph_sha256: str | None = None
    reference: int = 0
    memory: Memory | None = None
    lazy: LazyTerms | None = None
    rate_bytes_s: float | None = None
    base_sha256: str | None = None
    deltas: tuple[str, ...] = ()
    start: int = 0


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """A trained and encoded update.

    Attributes:
        manifest: Its size and digest; inline when it is small enough.
        tail: The update itself when inline, else the digests of its chunks.
        file: Where it lies when it is not inline: a file that is on disk, not yet in the store.
        num_examples: Distinct examples trained on.
        metrics: As measured while training; all finite.
        train_s: How long training and encoding took.
        reference: The round whose memory it builds on; 0: on none.
        memory: What to hold for the next round if this one is counted; None: nothing.
        choice: The codec that was picked, in a task whose codec is ``auto``.
        choice_reason: Why.
        gain: Squared norm of the decoded update, where its round has an uplink budget.
    """

    manifest: ObjectManifest
    tail: bytes
    file: Path | None
    num_examples: int
    metrics: dict[str, float]
    train_s: float
    reference: int = 0
    memory: Memory | None = None
    choice: Candidate | None = None
    choice_reason: str | None = None
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingProgressed:
    """The training thread has done a share of a job, 0 to 1."""

    key: JobKey
    share: float


@dataclass(frozen=True, slots=True)
class TrainingPaused:
    """The training thread waits between two steps; without a reason it goes on again."""

    key: JobKey
    reason: str | None


@dataclass(frozen=True, slots=True)
class TrainingFinished:
    """The training thread has an update."""

    key: JobKey
    update: EncodedUpdate


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    """The training thread has given a job up."""

    key: JobKey
    cause: Refusal


@dataclass(frozen=True, slots=True)
class RebuildFailed:
    """A job's model could not be made of an older one; the job has not begun to train."""

    key: JobKey
    reason: str


WorkerEvent = (
    TrainingProgressed | TrainingPaused | TrainingFinished | TrainingFailed | RebuildFailed
)


class Worker(Protocol):
    """Trains one job at a time, apart from the loop; puts ``WorkerEvent`` on the loop's queue."""

    @property
    def is_warm(self) -> bool:
        """Whether a training library is loaded already, so that it needs no more memory."""

    def assign(self, work: Work | None) -> None:
        """Make this the work in hand; returns at once.

        Other work is told to stop and its events no longer come. The same work, even when it has
        ended meanwhile, is not begun again.
        """


@dataclass(frozen=True, slots=True)
class Vitals:
    """How the device is now.

    Attributes:
        load: Of its processors.
        memory_free_bytes: What a job could use.
        temperature_c: Of its processor; None: no sensor tells it.
        battery_percent: How full its battery is; None: it has none.
        is_plugged: Whether that is being charged.
    """

    load: float
    memory_free_bytes: int
    temperature_c: float | None = None
    battery_percent: int | None = None
    is_plugged: bool = False


class Machine(Protocol):
    """The hardware that the agent runs on."""

    def capabilities(self) -> Capabilities:
        """Return what this device can carry; constant while the agent runs."""

    def memory_free_bytes(self) -> int:
        """Return the free memory alone: asked for each job, where reading sensors would cost."""

    def vitals(self) -> Vitals:
        """Return load, free memory and temperature now."""


class Boots(Protocol):
    """The counter of this program's starts, in its database."""

    def adopt(self, newer: int) -> int:
        """Return the boot to go on with after somebody has seen ``newer`` of this device.

        Raises:
            WireError: ``newer`` leaves no room for a next boot.
        """
