"""Runs a forward graph's file with onnxruntime alone, with parameters from outside.

onnx and torch are not imported here: central itself evaluates with this.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learning.models.architectures import ModelError

F32 = NDArray[np.float32]

INPUT, LOGITS, LABELS, MASK, LOSS = "input", "logits", "labels", "mask", "loss"
#: One scalar for every Dropout of a graph: true while training.
TRAINING_MODE = "training_mode"
EXAMPLE_BYTES = "fedfleet.example_bytes"

_ERRORS_ONLY = 3
_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class ForwardSession:
    """One graph, ready to be run; what it holds of parameters is used where none are given.

    Args:
        graph: A file or its content.
        threads: onnxruntime's threads.

    Raises:
        ModelError: onnxruntime cannot load it.
    """

    def __init__(self, graph: Path | bytes, threads: int = 1) -> None:
        import onnxruntime  # noqa: PLC0415 - only once a model is looked at

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            message = f"model: onnxruntime cannot load it: {_first_line(error)}"
            raise ModelError(message) from error
        held = self._session.get_modelmeta().custom_metadata_map
        self.example_bytes = int(held.get(EXAMPLE_BYTES, 0))
        self._parameters = {
            entry.name: tuple(entry.shape)
            for entry in self._session.get_overridable_initializers()
            if entry.name != TRAINING_MODE
        }
        self._fixed = {
            entry.name: np.array(False)  # noqa: FBT003 - a value, no switch
            for entry in self._session.get_overridable_initializers()
            if entry.name == TRAINING_MODE
        }
        self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
        self.has_loss = LOSS in {entry.name for entry in self._session.get_outputs()}

    def check(self, values: Mapping[str, F32]) -> None:
        """Refuse parameters that are not ones of this graph.

        Raises:
            ModelError: The text names the first and both shapes.
        """
        for name, array in values.items():
            if self._parameters.get(name) != array.shape:
                message = (
                    f"parameters: {name} has shape {self._parameters.get(name)} in the model, "
                    f"{array.shape} here"
                )
                raise ModelError(message)

    def run(
        self, x: F32, values: Mapping[str, F32], labels: NDArray[np.generic] | None = None
    ) -> list[F32]:
        """Return the logits, shape ``(n, ...)``, and the graph's own loss if it has one.

        Args:
            x: Examples, shape ``(n, *example)``.
            values: Parameters that differ from those in the graph.
            labels: For a graph that takes them; zeros if they are not given.

        Raises:
            ModelError: onnxruntime cannot run it.
        """
        feeds: dict[str, NDArray[np.generic]] = {INPUT: x, **values, **self._fixed}
        if LABELS in self._inputs:
            feeds[LABELS] = self._labels(len(x), labels)
        if MASK in self._inputs:
            feeds[MASK] = np.ones(len(x), np.float32)
        wanted = [LOGITS, LOSS] if self.has_loss else [LOGITS]
        try:
            found: list[F32] = self._session.run(wanted, feeds)
        except Exception as error:
            message = f"model: onnxruntime cannot run it: {_first_line(error)}"
            raise ModelError(message) from error
        return found

    def _labels(self, count: int, labels: NDArray[np.generic] | None) -> NDArray[np.generic]:
        entry = self._inputs[LABELS]
        dtype = _TYPES.get(entry.type, np.int64)
        if labels is not None:
            return labels.astype(dtype)
        rest = [size if isinstance(size, int) else 1 for size in entry.shape[1:]]
        return np.zeros((count, *rest), dtype)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
