"""What every trainer shares: its job is checked, its losses counted, its delta looked at."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.service.ports import TrainingError, TrainingRequest, TrainingStoppedError
from schemas.tasks import Training

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

_REPORTS = 20
_WITH_CLASSES = frozenset({"cross_entropy", "bce"})


@dataclass(slots=True)
class Tally:
    """Sums over the examples that were trained on; an example counts once a pass.

    Attributes:
        training: The job's; a loss without classes has no accuracy.
    """

    training: Training
    examples: int = 0
    loss: float = 0.0
    correct: int = 0

    def count(self, step: int, examples: int, loss: float, correct: int) -> None:
        """Add one step's mean loss and number of right answers.

        Raises:
            TrainingError: The loss is not finite.
        """
        if not math.isfinite(loss):
            message = (
                f"the loss is {loss} at step {step}; lower learning_rate "
                f"({self.training.learning_rate:g}) or set gradient_clip_norm"
            )
            raise TrainingError(message)
        self.examples += examples
        self.loss += loss * examples
        self.correct += correct

    def metrics(self) -> dict[str, float]:
        """Return the mean loss and, where there is one, the accuracy, as measured in training."""
        seen = max(1, self.examples)
        found = {"loss": self.loss / seen}
        if self.training.loss in _WITH_CLASSES:
            found["accuracy"] = self.correct / seen
        return found


def check_request(request: TrainingRequest) -> None:
    """Refuse a job whose parts do not fit together.

    Raises:
        TrainingError: The text names both sides.
    """
    plan, data = request.plan, request.data
    if data.x.shape[1:] != plan.input_shape or data.classes != plan.classes:
        message = (
            f"data: {data.name} has shape {data.x.shape[1:]} and {data.classes} classes, "
            f"the job needs {plan.input_shape} and {plan.classes}"
        )
        raise TrainingError(message)
    if not len(data):
        message = f"data: {data.name} has no example"
        raise TrainingError(message)
    if request.parameters.shape != (request.layout.size,):
        message = f"parameters: {request.parameters.shape}, the layout has {request.layout.size}"
        raise TrainingError(message)


def targets(labels: I64, classes: int, sizes: tuple[int | None, ...]) -> F32:
    """Return labels in the form that a loss of values compares logits with.

    Args:
        labels: Shape ``(n,)``, from 0 to ``classes - 1``.
        classes: Number of classes.
        sizes: Sizes of one example's logits.

    Raises:
        TrainingError: The logits are neither one value an example nor one a class.
    """
    width = math.prod(size or 0 for size in sizes)
    shape = (len(labels), *(size or 0 for size in sizes))
    if width == classes:
        hot = np.zeros((len(labels), classes), dtype=np.float32)
        hot[np.arange(len(labels)), labels] = 1.0
        return hot.reshape(shape)
    if width == 1:
        return labels.astype(np.float32).reshape(shape)
    message = f"logits: {width} values an example, with {classes} classes it must be 1 or as many"
    raise TrainingError(message)


def follow(
    steps: int, progress: Callable[[float], None], should_stop: Callable[[], bool]
) -> Callable[[int], None]:
    """Return what a trainer calls after each step: it reports now and then, and may stop it."""
    every = max(1, steps // _REPORTS)

    def after_step(step: int) -> None:
        if should_stop():
            message = f"stopped after {step} of {steps} steps"
            raise TrainingStoppedError(message)
        if step % every == 0 or step == steps:
            progress(step / steps)

    return after_step


def check_delta(delta: F32) -> F32:
    """Return a delta whose values are all finite.

    Raises:
        TrainingError: One is not.
    """
    if not (np.isfinite(delta.min()) and np.isfinite(delta.max())):
        message = "the trained parameters are not finite; lower learning_rate"
        raise TrainingError(message)
    return delta
