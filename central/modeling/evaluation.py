"""How good the global model is on examples that central holds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from central.modeling.running import ForwardSession
from learning.data.dataset import Dataset
from learning.models.architectures import ModelError
from schemas.limits import MIB
from updates.layout import Layout

F32 = NDArray[np.float32]

_BATCH = 512
_BINARY = 2
#: The largest value of a graph may take so much while a batch is evaluated.
_VALUE_BYTES = 256 * MIB


class Evaluator:
    """Evaluates models on one dataset; the last model's session is kept for the next round.

    Not safe to call from two threads at once.

    Args:
        dataset: Held-out examples, at least one.
        threads: onnxruntime's threads.

    Raises:
        ValueError: The dataset is empty.
    """

    def __init__(self, dataset: Dataset, threads: int = 1) -> None:
        if not len(dataset):
            message = f"dataset: {dataset.name} has no example to evaluate on"
            raise ValueError(message)
        self._dataset = dataset
        self._threads = threads
        self._kept: tuple[Path, ForwardSession] | None = None

    @property
    def dataset(self) -> Dataset:
        """The examples that are evaluated on."""
        return self._dataset

    def evaluate(self, forward: Path, vector: F32, layout: Layout) -> dict[str, float]:
        """Return ``accuracy`` (0 to 1) and ``loss`` (mean cross-entropy, nats).

        For a model with a loss of its own, ``loss`` is the mean of that.

        Args:
            forward: File of the model's forward graph; what is frozen has its values there.
            vector: The global parameters, shape ``(layout.size,)``.
            layout: Names and shapes of the parameters that travel.

        Raises:
            ModelError: The graph cannot be run on this dataset, or has other parameters.
        """
        session = self._session(forward)
        values = layout.unflatten(vector)
        session.check(values)
        correct, loss = self._sums(session, values)
        examples = len(self._dataset)
        return {"accuracy": correct / examples, "loss": loss / examples}

    def _session(self, forward: Path) -> ForwardSession:
        if self._kept is None or self._kept[0] != forward:
            self._kept = None
            self._kept = (forward, ForwardSession(forward, self._threads))
        return self._kept[1]

    def _sums(self, session: ForwardSession, values: Mapping[str, F32]) -> tuple[int, float]:
        correct, loss = 0, 0.0
        size = max(1, min(_BATCH, _VALUE_BYTES // max(1, session.example_bytes)))
        for start in range(0, len(self._dataset), size):
            x = self._dataset.x[start : start + size]
            labels = self._dataset.y[start : start + size]
            logits, *own = session.run(x, values, labels)
            classes = _as_classes(logits, self._dataset.classes)
            correct += int((classes.argmax(axis=1) == labels).sum())
            loss += float(own[0]) * len(x) if own else _cross_entropy(classes, labels)
        return correct, loss


def _as_classes(logits: F32, classes: int) -> F32:
    """Return one logit a class, shape ``(n, classes)``.

    One logit for two classes is that of the second, against 0: the softmax of both is its sigmoid.

    Raises:
        ModelError: There are not as many logits as classes.
    """
    if logits.shape[1:] == (classes,):
        return logits
    if logits.shape[1:] in {(), (1,)} and classes == _BINARY:
        second = logits.reshape(-1, 1)
        return np.concatenate([np.zeros_like(second), second], axis=1)
    message = f"model: its outputs have shape {logits.shape}, the data has {classes} classes"
    raise ModelError(message)


def _cross_entropy(logits: F32, labels: NDArray[np.int64]) -> float:
    """Return the sum over the examples, computed in float64."""
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sums - shifted[np.arange(len(labels)), labels]).sum())
