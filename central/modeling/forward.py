"""The forward graph: the one form of a model from which central makes all others.

An ONNX model of opset 18 and IR version 8 with the input ``input`` ``(batch, *example)``, the
output ``logits`` and its parameters as float32 initializers. The training graph, the evaluation
and the final model for inference are made from it. In its file every parameter is an input too,
so that onnxruntime alone can run it with other values than those it holds; so is
``training_mode``, if the model drops out.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from central.modeling.running import EXAMPLE_BYTES, TRAINING_MODE
from central.modeling.shapes import BATCH as SIZED_BATCH
from central.modeling.shapes import sizes
from learning.models.architectures import ModelError

F32 = NDArray[np.float32]

OPSET, IR_VERSION = 18, 8
BATCH = "batch"

_PARAMETERS, _FIXED = "fedfleet.parameters", "fedfleet.fixed"


@dataclass(frozen=True, slots=True)
class ForwardGraph:
    """A forward graph, and which of its initializers are the model's parameters.

    Attributes:
        model: As the module says; parameters are initializers and no inputs.
        parameters: Names of the tensors that may travel.
        fixed: Those of them that are never trained by themselves: buffers, and what the logits do
            not depend on.
    """

    model: onnx.ModelProto
    parameters: tuple[str, ...]
    fixed: tuple[str, ...] = ()

    def values(self) -> dict[str, F32]:
        """Return name -> value of the parameters."""
        wanted = set(self.parameters)
        return {
            tensor.name: numpy_helper.to_array(tensor).astype(np.float32, copy=False)
            for tensor in self.model.graph.initializer
            if tensor.name in wanted
        }

    def with_values(self, values: Mapping[str, F32]) -> "ForwardGraph":
        """Return the graph with other values for some of its parameters.

        Raises:
            ModelError: A name or a shape is not one of the graph.
        """
        shapes = {name: array.shape for name, array in self.values().items()}
        for name, array in values.items():
            if shapes.get(name) != array.shape:
                message = (
                    f"parameters: {name} has shape {shapes.get(name)} in the model, "
                    f"{array.shape} here"
                )
                raise ModelError(message)
        changed = onnx.ModelProto()
        changed.CopyFrom(self.model)
        for tensor in changed.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
        return ForwardGraph(changed, self.parameters, self.fixed)

    def example_bytes(self) -> int:
        """Return what the largest value that depends on the batch takes for one example."""
        held = {tensor.name for tensor in self.model.graph.initializer}
        found = (size for name, size in sizes(self.model) if name not in held)
        return max(found, default=0) // SIZED_BATCH

    def to_bytes(self) -> bytes:
        """Return the content of the graph's file."""
        stored = onnx.ModelProto()
        stored.CopyFrom(self.model)
        for tensor in stored.graph.initializer:
            if tensor.name in self.parameters or tensor.name == TRAINING_MODE:
                stored.graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                )
        helper.set_model_props(
            stored,
            {
                _PARAMETERS: json.dumps(self.parameters),
                _FIXED: json.dumps(self.fixed),
                EXAMPLE_BYTES: str(self.example_bytes()),
            },
        )
        return bytes(stored.SerializeToString(deterministic=True))

    @classmethod
    def load(cls, path: Path) -> "ForwardGraph":
        """Return the graph in a file that ``to_bytes`` gave; central's own, so it is trusted."""
        model = onnx.load(path, load_external_data=False)
        held = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        del model.metadata_props[:]
        keep_inputs(model.graph)
        return cls(model, tuple(held[_PARAMETERS]), tuple(held[_FIXED]))


def keep_inputs(graph: onnx.GraphProto) -> None:
    """Take the initializers out of the graph's inputs."""
    initializers = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in initializers]
    del graph.input[:]
    graph.input.extend(kept)


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model at IR version 8, without texts and without claims about inner shapes.

    What an exporter notes of the code that a node came from, paths among it, goes no further.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.ir_version = IR_VERSION
    made.producer_name, made.producer_version, made.domain, made.doc_string = "", "", "", ""
    del made.metadata_props[:]
    del made.graph.value_info[:]
    del made.graph.quantization_annotation[:]
    keep_inputs(made.graph)
    graph = made.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    for node in made.graph.node:
        node.ClearField("overload")
    return made


def share_training_mode(model: onnx.ModelProto, *, every: bool) -> None:
    """Let the graph's one scalar ``training_mode`` tell all its Dropout nodes what to do.

    Args:
        model: Changed in place.
        every: Whether a Dropout that says nothing, or false, drops out while training as well.
    """
    truths = {
        name for name, value in _constants(model.graph) if value.dtype == bool and value.all()
    }
    dropped = [
        node
        for node in model.graph.node
        if node.op_type == "Dropout" and (every or (node.input[2:3] and node.input[2] in truths))
    ]
    if not dropped:
        return
    for node in dropped:
        ratio = node.input[1] if len(node.input) > 1 else ""
        data = node.input[0]
        del node.input[:]
        node.input.extend((data, ratio, TRAINING_MODE))
    true = helper.make_tensor(TRAINING_MODE, TensorProto.BOOL, (), (True,))
    model.graph.initializer.append(true)


def name_ends(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename values of the graph in place, wherever they occur.

    Args:
        model: Changed in place.
        names: Old name -> new name; what already has a new name is moved out of its way.
    """
    changes = {old: new for old, new in names.items() if old != new}
    taken = _all_names(model.graph)
    for new in list(changes.values()):
        if new in taken and new not in changes:
            changes[new] = _free(f"{new}_", taken)
    for node in model.graph.node:
        for field in (node.input, node.output):
            renamed = [changes.get(name, name) for name in field]
            del field[:]
            field.extend(renamed)
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        part.name = changes.get(part.name, part.name)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    return used | {part.name for part in (*graph.input, *graph.output, *graph.initializer)}


def _free(stem: str, taken: Iterable[str]) -> str:
    known = set(taken)
    return next(
        name for number in range(len(known) + 1) if (name := f"{stem}{number}") not in known
    )


def _constants(graph: onnx.GraphProto) -> Iterable[tuple[str, NDArray[np.generic]]]:
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)
