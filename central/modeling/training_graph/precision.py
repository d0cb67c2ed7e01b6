"""A float32 graph in double precision, and with its random masks held still, for verification."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from central.modeling.training_graph import names
from central.modeling.training_graph.builder import Shape
from central.modeling.training_graph.double_kernels import substitute

#: Operators of which onnxruntime's CPU provider has float32 kernels only; others are found out.
SINGLE_ONLY: Final = frozenset(
    {
        "AveragePool",
        "Conv",
        "ConvTranspose",
        "Erf",
        "Gelu",
        "LayerNormalization",
        "OneHot",
        "Resize",
        "Softplus",
    }
)
#: What running a graph raises when its data or its nodes do not fit.
RUN_ERRORS: Final = (ort_errors.InvalidArgument, ort_errors.Fail, ort_errors.RuntimeException)
_NO_KERNEL = re.compile(r"implementation for (\w+)\(")
_FATAL = 4
#: How the names of casts to float32 end: where they round, and where 0 and 1 stay what they are.
_SINGLE, _EXACT = "/single", "/exact"
_TRAINING_MODE_INPUTS = 3


def quiet_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session on the CPU that computes the graph as written and logs nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def double_session(
    model: onnx.ModelProto, shapes: Mapping[str, Shape]
) -> tuple[onnxruntime.InferenceSession, bool]:
    """Return a session of the graph in double precision, and whether all of its loss is.

    Operators without a kernel for double are made of others, or else compute in float32 between
    two casts.

    Args:
        model: From ``parameters`` and data to ``loss`` and others.
        shapes: Of its forward half's tensors.
    """
    operators = {node.op_type for node in model.graph.node}
    single = SINGLE_ONLY & operators
    while True:
        doubled = in_double(model, shapes, single)
        try:
            return quiet_session(doubled), not _rounds(doubled)
        except ort_errors.NotImplemented as error:
            found = _NO_KERNEL.search(str(error))
            if found is None or found[1] in single or found[1] not in operators:
                raise
            single |= {found[1]}


def _rounds(model: onnx.ModelProto) -> bool:
    """Tell whether anything on the way to the loss is rounded to float32."""
    wanted = {names.LOSS}
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            if node.op_type == "Cast" and node.output[0].endswith(_SINGLE):
                return True
    return False


def in_double(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], single: Iterable[str] = ()
) -> onnx.ModelProto:
    """Return a copy whose float32 tensors are float64, inputs and outputs too.

    Args:
        model: Without subgraphs.
        shapes: Of the tensors whose operators may be made of others.
        single: Operators that keep computing in float32.
    """
    copy = onnx.shape_inference.infer_shapes(model)
    graph = copy.graph
    floats = _float_names(graph)
    for info in (*graph.input, *graph.output):
        if info.name in floats:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    del graph.value_info[:]
    for tensor in graph.initializer:
        tensor.CopyFrom(_doubled(tensor))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        other = substitute(node, shapes)
        if other is not None:
            graph.node.extend(other.nodes)
            graph.initializer.extend(other.constants)
        elif node.op_type in single:
            graph.node.extend(_between_casts(node, floats))
        else:
            _double_attributes(node)
            graph.node.append(node)
    return copy


def with_kept_masks(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return a copy in which dropout uses the masks of one run with ``feed``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    drops = [node for node in copy.graph.node if _draws(node)]
    if not drops:
        return copy
    for number, node in enumerate(drops):
        node.output[1:] = [_second_output(node) or f"kept_mask.{number}"]
    masks = _masks(copy, [node.output[1] for node in drops], feed)
    values = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in drops:
        mask = masks[node.output[1]]
        ratio = float(numpy_helper.to_array(values[node.input[1]])) if node.input[1] else 0.5
        factor = f"{node.output[1]}.factor"
        scaled = mask.astype(np.float32) / np.float32(1 - ratio)
        copy.graph.initializer.append(numpy_helper.from_array(mask, node.output[1]))
        copy.graph.initializer.append(numpy_helper.from_array(scaled, factor))
        node.CopyFrom(helper.make_node("Mul", [node.input[0], factor], [node.output[0]]))
    return copy


def _draws(node: onnx.NodeProto) -> bool:
    return node.op_type == "Dropout" and len(node.input) >= _TRAINING_MODE_INPUTS


def _second_output(node: onnx.NodeProto) -> str:
    return node.output[1] if len(node.output) > 1 else ""


def _masks(
    model: onnx.ModelProto, wanted: list[str], feed: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.bool_]]:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.BOOL, None) for name in wanted
    )
    found = quiet_session(probe).run(wanted, dict(feed))
    return dict(zip(wanted, found, strict=True))


def _float_names(graph: onnx.GraphProto) -> set[str]:
    infos = (*graph.value_info, *graph.input, *graph.output)
    found = {i.name for i in infos if i.type.tensor_type.elem_type == TensorProto.FLOAT}
    found.update(t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT)
    return found


def _doubled(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != TensorProto.FLOAT:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)


def _double_attributes(node: onnx.NodeProto) -> None:
    for item in node.attribute:
        if item.type == onnx.AttributeProto.TENSOR:
            item.t.CopyFrom(_doubled(item.t))
        elif node.op_type in {"Cast", "RandomNormalLike"} and item.i == TensorProto.FLOAT:
            item.i = TensorProto.DOUBLE


def _between_casts(node: onnx.NodeProto, floats: set[str]) -> list[onnx.NodeProto]:
    """Return the node with a cast to float32 before and one to double after it."""
    before, after = [], []
    for position, name in enumerate(node.input):
        if name in floats:
            kind = _EXACT if node.op_type == "OneHot" else _SINGLE
            inside = f"{node.output[0]}/{position}{kind}"
            before.append(helper.make_node("Cast", [name], [inside], to=TensorProto.FLOAT))
            node.input[position] = inside
    for position, name in enumerate(node.output):
        if name in floats:
            inside = f"{name}/result"
            after.append(helper.make_node("Cast", [inside], [name], to=TensorProto.DOUBLE))
            node.output[position] = inside
    return [*before, node, *after]
