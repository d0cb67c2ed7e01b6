"""Forward graphs out of .onnx files, whatever wrote them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from central.modeling.forward import (
    BATCH,
    OPSET,
    ForwardGraph,
    name_ends,
    share_training_mode,
    tidied,
)
from central.modeling.import_gate import GateLimits, read_model
from central.modeling.running import INPUT, LABELS, LOGITS, LOSS, MASK
from central.modeling.unsafe import Gate, UnsafeModelError
from schemas.errors import shown

_STANDARD = frozenset({"", "ai.onnx"})


def forward_graph(path: Path, limits: GateLimits | None = None) -> ForwardGraph:
    """Return the forward graph in a file; every float32 initializer is a parameter.

    Args:
        path: From this program's own settings or command line, never from a message.
        limits: Of the import gate.

    Raises:
        UnsafeModelError: A gate refused, or it is no model of the form that can be trained.
    """
    model = read_model(path, limits)
    try:
        return _normalized(model)
    except UnsafeModelError as error:
        raise error.of(path.name) from error


def _normalized(model: onnx.ModelProto) -> ForwardGraph:
    model = tidied(_at_opset(model))
    _name_and_free(model)
    share_training_mode(model, every=False)
    finite, other = _float_tensors(model)
    if not finite:
        raise UnsafeModelError(Gate.PARAMETERS, "it has no float32 initializer to train")
    return ForwardGraph(model, finite, other)


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next(entry.version for entry in model.opset_import if entry.domain in _STANDARD)
    if version != OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            message = (
                f"{version}, and it cannot be made {OPSET}: {first[:200]}; export with opset 18"
            )
            raise UnsafeModelError(Gate.OPSET, message) from error
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return model


def _name_and_free(model: onnx.ModelProto) -> None:
    """Give input and output their names, and the batch its free axis."""
    given = model.graph.input
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in given if value.name not in initializers]
    data = [value for value in inputs if value.name not in (LABELS, MASK)]
    if len(data) != 1:
        names = ", ".join(shown(value.name) for value in data[:5]) or "none"
        raise UnsafeModelError(
            Gate.INPUT, f"one input is needed, besides `labels` and `mask`; it has: {names}"
        )
    outputs = [value for value in model.graph.output if value.name != LOSS]
    if len(outputs) != 1:
        names = ", ".join(shown(value.name) for value in outputs[:5]) or "none"
        raise UnsafeModelError(
            Gate.OUTPUT, f"one output is needed, besides `loss`; it has: {names}"
        )
    for value, gate in ((data[0], Gate.INPUT), (outputs[0], Gate.OUTPUT)):
        _free_batch(value, gate)
    _put_first(model.graph, data[0].name, outputs[0].name)
    name_ends(model, {data[0].name: INPUT, outputs[0].name: LOGITS})


def _free_batch(value: onnx.ValueInfoProto, gate: Gate) -> None:
    kind = value.type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or not kind.shape.dim:
        message = f"{shown(value.name)} must be float32 with the batch as its first axis"
        raise UnsafeModelError(gate, message)
    kind.shape.dim[0].dim_param = BATCH


def _put_first(graph: onnx.GraphProto, data: str, logits: str) -> None:
    for field, first in ((graph.input, data), (graph.output, logits)):
        ordered = sorted(field, key=lambda value: value.name != first)
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in ordered]
        del field[:]
        field.extend(copies)


def _float_tensors(model: onnx.ModelProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the float32 initializers that are finite, and those that are not: masks, say."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            if values.size:
                found[bool(np.isfinite(values).all())].append(tensor.name)
    return tuple(sorted(found[True])), tuple(sorted(found[False]))
