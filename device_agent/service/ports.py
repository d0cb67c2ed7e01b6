"""What the agent's use cases need from outside: a trainer, a data source, the device itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from learning.data.dataset import Dataset
from schemas.messages import Capabilities, TrainingPlan
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
    """

    plan: TrainingPlan
    layout: Layout
    parameters: F32
    data: Dataset
    round_seed: int


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What training gave.

    Attributes:
        delta: New parameters minus the global ones, shape ``(layout.size,)``.
        num_examples: Distinct examples trained on.
        metrics: Mean training loss, accuracy, as measured while training.
    """

    delta: F32
    num_examples: int
    metrics: dict[str, float] = field(default_factory=dict)


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
class Vitals:
    """How the device is now."""

    load: float
    memory_free_bytes: int
    temperature_c: float | None = None


class Machine(Protocol):
    """The hardware that the agent runs on."""

    def capabilities(self) -> Capabilities:
        """Return what this device can carry; constant while the agent runs."""

    def vitals(self) -> Vitals:
        """Return load, free memory and temperature now."""
