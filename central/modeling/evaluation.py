"""How good the global model is on examples that central holds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learning.data.dataset import Dataset
from learning.models import parameters, registry
from schemas.tasks import Parameter
from updates.layout import Layout

if TYPE_CHECKING:
    from torch import nn

F32 = NDArray[np.float32]

_BATCH = 512


class Evaluator:
    """Evaluates models on one dataset; the last model's module is kept for the next round.

    Not safe to call from two threads at once.

    Args:
        dataset: Held-out examples, at least one.
        allow_list: Models beyond the built-in ones, name -> ``package.module:factory``.
        threads: torch's threads.

    Raises:
        ValueError: The dataset is empty.
    """

    def __init__(
        self, dataset: Dataset, allow_list: Mapping[str, str] | None = None, threads: int = 1
    ) -> None:
        if not len(dataset):
            message = f"dataset: {dataset.name} has no example to evaluate on"
            raise ValueError(message)
        self._dataset = dataset
        self._allow_list = dict(allow_list or {})
        self._threads = threads
        self._kept: tuple[object, nn.Module] | None = None

    @property
    def dataset(self) -> Dataset:
        """The examples that are evaluated on."""
        return self._dataset

    def evaluate(
        self, name: str, params: Mapping[str, Parameter], vector: F32, layout: Layout
    ) -> dict[str, float]:
        """Return ``accuracy`` (0 to 1) and ``loss`` (mean cross-entropy, nats).

        Args:
            name: Which model.
            params: Its settings.
            vector: The global parameters, shape ``(layout.size,)``.
            layout: Names and shapes of the parameters.

        Raises:
            ModelError: The model cannot be built for this dataset, or has other parameters.
        """
        module = self._module(name, params)
        parameters.write(module, layout.unflatten(vector))
        correct, loss = self._sums(module)
        examples = len(self._dataset)
        return {"accuracy": correct / examples, "loss": loss / examples}

    def _module(self, name: str, params: Mapping[str, Parameter]) -> "nn.Module":
        key = (name, dict(params))
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            module = registry.build(
                name,
                params,
                self._dataset.x.shape[1:],
                self._dataset.classes,
                allow_list=self._allow_list,
            )
            self._kept = (key, module.eval())
        return self._kept[1]

    def _sums(self, module: "nn.Module") -> tuple[int, float]:
        import torch  # noqa: PLC0415

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        correct, loss = 0, 0.0
        with torch.inference_mode():
            for start in range(0, len(self._dataset), _BATCH):
                chosen = np.arange(start, min(start + _BATCH, len(self._dataset)))
                labels = torch.from_numpy(self._dataset.y[chosen])
                logits = module(torch.from_numpy(self._dataset.x[chosen]))
                correct += int((logits.argmax(dim=1) == labels).sum())
                summed = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
                loss += float(summed)
        return correct, loss
