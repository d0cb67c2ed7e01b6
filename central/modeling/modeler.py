"""Central's models behind one port: build the first, measure each, write out the last."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from central.modeling.evaluation import Evaluator
from central.modeling.export import export_onnx
from central.modeling.factory import ModelFactory
from central.service.ports import Prepared
from learning.data.dataset import Dataset, concatenate
from learning.data.sources import load
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from updates.layout import Layout

F32 = NDArray[np.float32]
DataKey = tuple[str, tuple[int, ...], str, int]


class TorchModeler:
    """The port ``Modeler``; torch is imported when the first model is built."""

    def __init__(self, allow_list: Mapping[str, str], eval_data: Sequence[str]) -> None:
        """Load the held-out sets; sets of the same form are joined.

        Args:
            allow_list: Models beyond the built-in ones, name -> ``package.module:factory``.
            eval_data: Specifications of held-out data, as ``learning.data.sources`` reads them.

        Raises:
            DataError: A set cannot be loaded.
        """
        self._factory = ModelFactory(allow_list)
        parts: dict[DataKey, list[Dataset]] = {}
        for spec in eval_data:
            dataset = load(spec, train=False)
            parts.setdefault(dataset.description().key, []).append(dataset)
        self._evaluators = {
            key: Evaluator(concatenate(datasets), allow_list) for key, datasets in parts.items()
        }

    def check(self, submission: TaskSubmission) -> None:
        """Check a task's model and its parameters by name alone."""
        self._factory.check(submission.model, submission.model_params)

    def prepare(
        self,
        submission: TaskSubmission,
        data: DataDescription,
        scratch: Path,  # noqa: ARG002 - the port
    ) -> Prepared:
        """Return the first parameters of a task's model, from its seed."""
        layout, vector = self._factory.describe(
            submission.model, submission.model_params, data.shape, data.classes, submission.seed
        )
        return Prepared(layout, vector, None, "this central builds none")

    def has_evaluation(self, data: DataDescription) -> bool:
        """Tell whether there is a held-out set for such data."""
        return data.key in self._evaluators

    def evaluate(
        self, submission: TaskSubmission, data: DataDescription, layout: Layout, vector: F32
    ) -> dict[str, float]:
        """Return a model's accuracy and loss on the held-out set."""
        evaluator = self._evaluators[data.key]
        return evaluator.evaluate(submission.model, submission.model_params, vector, layout)

    def export(
        self,
        submission: TaskSubmission,
        data: DataDescription,
        load: Callable[[], F32],
        path: Path,
    ) -> None:
        """Write a model for inference as ONNX.

        The parameters are let go before the export begins, which takes three times their memory.
        """
        module = self._factory.restore(
            submission.model, submission.model_params, data.shape, data.classes, load()
        )
        export_onnx(module, data.shape, path)
