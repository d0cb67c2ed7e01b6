"""Constant folding: what no trainable and no input reaches is computed once, here."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]

#: Larger results stay computed: they would only make the graph larger.
MAX_FOLDED_VALUES = 1 << 22

#: Their output can be far larger than their inputs.
_GROWING = frozenset({"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile"})
_NEVER = frozenset(
    {
        *("Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike", "SplitToSequence", "SequenceConstruct"),
        *("If", "Loop", "Scan"),
    }
)


def fold_constants(model: onnx.ModelProto, trainable: Collection[str]) -> bool:
    """Replace nodes of constant inputs by initializers, in place; tell whether there were any.

    Args:
        model: With as many shapes in ``value_info`` as are known.
        trainable: Initializers that are not constant.
    """
    graph = model.graph
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.name not in trainable
    }
    shapes = _known_shapes(graph)
    kept, outputs = [], {info.name for info in graph.output}
    for node in graph.node:
        results = None if outputs.intersection(node.output) else _results(node, values, shapes)
        if results is None:
            kept.append(node)
            continue
        for name, value in results.items():
            values[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
    folded = len(kept) < len(graph.node)
    graph.ClearField("node")
    graph.node.extend(kept)
    return folded


def fold_values(model: onnx.ModelProto, runs: Sequence[Mapping[str, Array]]) -> None:
    """Replace what is computed of shapes alone and came out equal in every run, in place."""
    graph = model.graph
    derived = {tensor.name for tensor in graph.initializer if tensor.data_type in _COUNTING}
    kept, outputs = [], {info.name for info in graph.output}
    for node in graph.node:
        if not _is_derived(node, derived, runs[0]):
            kept.append(node)
            continue
        derived.update(node.output)
        if outputs.intersection(node.output) or not all(_same(name, runs) for name in node.output):
            kept.append(node)
            continue
        graph.initializer.extend(
            numpy_helper.from_array(runs[0][name], name) for name in node.output
        )
    graph.ClearField("node")
    graph.node.extend(kept)


_COUNTING = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}


def _is_derived(node: onnx.NodeProto, derived: set[str], run: Mapping[str, Array]) -> bool:
    if node.op_type in _NEVER or not all(name in run for name in node.output):
        return False
    if node.op_type in {"Shape", "Size"}:
        return True
    return bool(node.input) and all(name in derived for name in node.input if name)


def _same(name: str, runs: Sequence[Mapping[str, Array]]) -> bool:
    first = runs[0][name]
    return first.size <= MAX_FOLDED_VALUES and all(
        np.array_equal(first, run[name]) for run in runs[1:]
    )


def _known_shapes(graph: onnx.GraphProto) -> dict[str, list[int | None]]:
    shapes: dict[str, list[int | None]] = {}
    for info in (*graph.value_info, *graph.input, *graph.output):
        tensor = info.type.tensor_type
        if tensor.HasField("shape"):
            shapes[info.name] = [
                dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
            ]
    return shapes


def _results(
    node: onnx.NodeProto, values: Mapping[str, Array], shapes: Mapping[str, list[int | None]]
) -> dict[str, Array] | None:
    """Return the values of a node's outputs, None if they cannot be told or are too large."""
    names = [name for name in node.input if name]
    if node.op_type in _NEVER or not names or any(name not in values for name in names):
        return None
    if node.op_type in _GROWING and not _is_small(shapes.get(node.output[0])):
        return None
    inputs = {name: values[name] for name in names}
    return _evaluate(node, inputs)


def _is_small(shape: list[int | None] | None) -> bool:
    if shape is None:
        return False
    sizes = [dim for dim in shape if dim is not None]
    return len(sizes) == len(shape) and math.prod(sizes) <= MAX_FOLDED_VALUES


def _evaluate(node: onnx.NodeProto, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
    names = [name for name in node.output if name]
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in inputs.items()
    ]
    ends = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph([node], "folded", infos, ends)
    opsets = [helper.make_opsetid("", 18)]
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))
        results = evaluator.run(None, dict(inputs))
    except Exception:  # noqa: BLE001 - it stays a node, and onnxruntime has the last word
        return None
    return {name: np.asarray(value) for name, value in zip(names, results, strict=True)}
