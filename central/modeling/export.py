"""The final model for inference, made from the forward graph and checked before it has its name.

Opset and IR version are the oldest that hold the graph, so that runtimes from 1.14 on load it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from central.modeling.forward import ForwardGraph
from central.modeling.running import INPUT, LABELS, LOSS, TRAINING_MODE, ForwardSession
from central.modeling.trial import TOLERANCE, largest_difference

F32 = NDArray[np.float32]

_CHECKED_BATCHES = (1, 3)


class ExportError(RuntimeError):
    """A model cannot be exported, or the exported one computes something else."""


def export_onnx(
    forward: ForwardGraph, values: Mapping[str, F32], input_shape: tuple[int, ...], path: Path
) -> Path:
    """Write a model to ``path``: ``input`` ``(batch, *input_shape)`` to ``logits``.

    The file replaces an older one only after the checker accepted it and it gave what the
    evaluation gives, on inputs of two batch sizes.

    Args:
        forward: The model's forward graph; what is frozen has its values there.
        values: The trained parameters by name.
        input_shape: Shape of one example.
        path: Where to write; its directory must exist.

    Returns:
        ``path``.

    Raises:
        ModelError: A name or a shape in ``values`` is not one of the graph.
        ExportError: The outputs differ.
        OSError: The file cannot be written.
    """
    for leftover in path.parent.glob(f".{path.name}.*.draft"):
        leftover.unlink(missing_ok=True)  # of a process that was killed
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    model = inference_model(forward.with_values(values))
    try:
        onnx.save_model(model, draft)
        _check(forward, values, input_shape, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def inference_model(forward: ForwardGraph) -> onnx.ModelProto:
    """Return the graph without what only training needs: dropout, a loss, labels."""
    model = onnx.ModelProto()
    model.CopyFrom(forward.model)
    graph = model.graph
    kept = [value for value in graph.output if value.name != LOSS]
    del graph.output[:]
    graph.output.extend(kept)
    for tensor in graph.initializer:
        if tensor.name == TRAINING_MODE:
            tensor.CopyFrom(numpy_helper.from_array(np.array(False), TRAINING_MODE))  # noqa: FBT003
    _drop_dropout(graph)
    _drop_unused(graph)
    return model


def _drop_dropout(graph: onnx.GraphProto) -> None:
    """Make an identity of every Dropout: outside of training it is one."""
    for node in graph.node:
        if node.op_type == "Dropout" and len([name for name in node.output if name]) == 1:
            data, made = node.input[0], node.output[0]
            node.Clear()
            node.op_type = "Identity"
            node.input.append(data)
            node.output.append(made)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(filter(None, node.output)):
            used.update(node.input)
            kept.append(node)
    kept.reverse()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(nodes)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in used:
            del graph.initializer[place]
    for place in reversed(range(len(graph.input))):
        if graph.input[place].name == LABELS and LABELS not in used:
            del graph.input[place]


def export_for(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model for a runtime that knows no later opset than ``opset``.

    A graph of opset 18 runs from onnxruntime 1.14 on (February 2023), older than any that fedfleet
    supports; this is for other runtimes.

    Raises:
        ExportError: An operator of it has no older form.
    """
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    if version <= opset:
        return model
    try:
        return onnx.version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        message = f"export: it cannot be made opset {opset}: {first[:200]}"
        raise ExportError(message) from error


def _check(
    forward: ForwardGraph, values: Mapping[str, F32], input_shape: tuple[int, ...], path: Path
) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except onnx.checker.ValidationError as error:
        message = f"export: {error}"
        raise ExportError(message) from error
    evaluated, written = ForwardSession(forward.to_bytes()), ForwardSession(path)
    rng = np.random.default_rng(0)
    for size in _CHECKED_BATCHES:
        x = rng.standard_normal((size, *input_shape), dtype=np.float32)
        difference = largest_difference(written.run(x, {})[0], evaluated.run(x, values)[0])
        if not difference <= TOLERANCE:
            message = f"export: outputs differ by {difference}, at most {TOLERANCE} is allowed"
            raise ExportError(message)


__all__ = ["INPUT", "ExportError", "TensorProto", "export_for", "export_onnx", "inference_model"]
