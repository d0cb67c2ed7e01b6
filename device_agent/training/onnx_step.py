"""One training graph in a session: it is checked once, then it takes step after step."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device_agent.service.ports import TrainingError
from device_agent.training import onnx_runtime
from device_agent.training.graph_reader import (
    FLOAT,
    INT64,
    GraphDescription,
    TensorType,
    read_graph,
)
from device_agent.training.onnx_runtime import Providers
from learning.graph_file import decode_graph, unpacked_limit
from schemas.messages import TrainingPlan

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

F32 = NDArray[np.float32]
Feed = dict[str, NDArray[np.generic]]

_PADDING = "fedfleet.padding"
_SCALARS = ("learning_rate", "proximal_mu", "clip_norm")
_VECTORS = ("parameters", "reference")
_DATA = ("input", "labels", "mask")
_KNOWN = frozenset({*_SCALARS, *_VECTORS, *_DATA, "state"})


@dataclass(frozen=True, slots=True)
class OnnxStep:
    """A graph that was checked against a plan, in a session.

    Attributes:
        session: Runs it.
        graph: Its inputs and outputs.
        providers: What it was made for.
    """

    session: "InferenceSession"
    graph: GraphDescription
    providers: Providers

    @classmethod
    def load(
        cls, file: Path, plan: TrainingPlan, threads: int, providers: Providers
    ) -> "OnnxStep":
        """Unpack a graph, check it, and make its session.

        Raises:
            PayloadError: The file is not one packed graph.
            GraphError: The graph is not one, or asks for more than standard operators.
            TrainingError: It does not fit the plan.
        """
        packed = file.read_bytes()
        unpacked = decode_graph(packed, unpacked_limit(len(packed)))
        graph = read_graph(unpacked)
        check_graph(graph, plan)
        session = onnx_runtime.make_session(unpacked, graph.nodes, threads, providers)
        return cls(session, graph, providers)

    @property
    def state_size(self) -> int:
        """Values in the optimizer's state; 0: it has none."""
        state = self.graph.inputs.get("state")
        return 0 if state is None else state.sizes[0] or 0

    @property
    def labels(self) -> TensorType | None:
        """What it takes as labels, if it takes any."""
        return self.graph.inputs.get("labels")

    def padded_to(self, batch_size: int) -> int:
        """Return the number of examples that every batch must have; 1: as many as there are.

        The CPU takes a smaller last batch as it is. Other providers prepare for each size anew.

        Raises:
            TrainingError: The graph's batch is fixed, and it must not be padded.
        """
        fixed = self.graph.inputs["input"].sizes[0]
        may_pad = self.graph.metadata.get(_PADDING) != "forbidden"
        if fixed is None:
            return batch_size if may_pad and self.providers.accelerator else 1
        if fixed != batch_size or not may_pad:
            message = f"graph: its batch is {fixed}, the task's batch_size is {batch_size}"
            raise TrainingError(message)
        return fixed

    def fitting(self, feed: Feed) -> Feed:
        """Return those of some inputs that the graph has."""
        return {name: value for name, value in feed.items() if name in self.graph.inputs}

    def run(self, feed: Feed, *, is_last: bool) -> dict[str, F32]:
        """Take one step; the outputs by name, ``correct`` as whatever the graph gives."""
        names = list(self.graph.outputs)
        options = onnx_runtime.last_run(self.session) if is_last else None
        return dict(zip(names, self.session.run(names, feed, options), strict=True))


def check_graph(graph: GraphDescription, plan: TrainingPlan) -> None:
    """Refuse a graph that is not one step of this plan.

    Raises:
        TrainingError: The text names the input or output, what it is and what it must be.
    """
    training, size = plan.training, plan.parameters
    wanted = {"parameters", "input", "learning_rate"}
    wanted |= {"proximal_mu", "reference"} if training.proximal_mu else set()
    wanted |= {"clip_norm"} if training.gradient_clip_norm is not None else set()
    _check_names("inputs", graph.inputs, wanted)
    _check_names("outputs", graph.outputs, {"new_parameters", "loss", "correct"})
    for name in _VECTORS:
        _check_input(graph, name, FLOAT, (size,))
    for name in _SCALARS:
        _check_input(graph, name, FLOAT, ())
    _check_input(graph, "input", FLOAT, (None, *plan.input_shape))
    labels = INT64 if training.loss == "cross_entropy" else None
    _check_input(graph, "labels", labels, None)
    if unknown := sorted(graph.inputs.keys() - _KNOWN):
        message = f"graph: input {unknown[0]!r} is not known here"
        raise TrainingError(message)
    if "clip_norm" in graph.inputs and training.gradient_clip_norm is None:
        message = "graph: input 'clip_norm', which the plan does not ask for"
        raise TrainingError(message)


def _check_names(what: str, found: dict[str, TensorType], wanted: set[str]) -> None:
    if missing := sorted(wanted - found.keys()):
        message = f"graph: {what}: {missing[0]!r} is missing"
        raise TrainingError(message)


def _check_input(
    graph: GraphDescription, name: str, element: int | None, sizes: tuple[int | None, ...] | None
) -> None:
    found = graph.inputs.get(name)
    if found is None:
        return
    fits = sizes is None or (
        len(found.sizes) == len(sizes)
        and all(
            want is None or have in {None, want}
            for have, want in zip(found.sizes, sizes, strict=True)
        )
    )
    if not fits or element not in {None, found.element}:
        message = (
            f"graph: input {name!r} has element type {found.element} and shape {found.sizes}, "
            f"the plan needs {element or found.element} and {sizes}"
        )
        raise TrainingError(message)
