"""The final model for inference, made from the forward graph and checked before it has its name.

Opset 18 and IR version 8: onnxruntime loads them since 1.14, older than any that trains here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from central.modeling.forward import OPSET, ForwardGraph
from central.modeling.running import LABELS, LOSS, MASK, TRAINING_MODE, ForwardSession
from central.modeling.trial import TOLERANCE, largest_difference

F32 = NDArray[np.float32]

_CHECKED_BATCHES = (1, 3)
#: Newest opset by minor version, https://onnxruntime.ai/docs/reference/compatibility.html.
_OPSETS = {8: 14, 9: 15, 11: 16, 12: 17, 14: 18}


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
        name = graph.input[place].name
        if name in (LABELS, MASK) and name not in used:
            del graph.input[place]


def export_for(model: onnx.ModelProto, runtime: str) -> onnx.ModelProto:
    """Return the model in the newest opset that a version of onnxruntime loads, 18 at most.

    Every onnxruntime that fedfleet itself needs has opset 18; older ones are for devices that
    only infer.

    Args:
        model: Of opset 18.
        runtime: Version of onnxruntime, such as ``1.12.1``.

    Raises:
        ExportError: The version is not known, or an operator of the model has no older form.
    """
    opset = _opset_of(runtime)
    if opset >= OPSET:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        message = f"export: it cannot be made opset {opset}: {first[:200]}"
        raise ExportError(message) from error


def _opset_of(runtime: str) -> int:
    major, _, rest = runtime.partition(".")
    minor = rest.partition(".")[0]
    if major != "1" or not minor.isdecimal() or int(minor) < min(_OPSETS):
        message = f"export: onnxruntime {runtime} is not known, 1.{min(_OPSETS)} is the oldest"
        raise ExportError(message)
    return _OPSETS[max(known for known in _OPSETS if known <= int(minor))]


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
