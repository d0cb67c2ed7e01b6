"""Operators that onnxruntime computes in float32 only, out of ones that it has for double.

They stand in for the forward half's when a gradient is verified: what a difference of losses
shows is limited by the loss's rounding. Speed does not matter, and shapes are known.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from central.modeling.training_graph.builder import Attribute, Shape
from central.modeling.training_graph.nodes import attribute, has_attribute, optional_input


class Substitute:
    """Nodes and constants that take the place of one node.

    Attributes:
        nodes: In order of execution; the last ones have the node's outputs.
        constants: What they need.
    """

    def __init__(self, node: onnx.NodeProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = f"{node.output[0]}/double"

    def emit(self, operator: str, *inputs: str, output: str = "", **attributes: Attribute) -> str:
        """Add a node; return its output's name."""
        name = output or f"{self._prefix}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: type = np.int64) -> str:
        """Add a constant; return its name."""
        name = f"{self._prefix}/constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name


def substitute(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> Substitute | None:
    """Return what computes the same in double, None if there is nothing or a shape is unknown."""
    make = _SUBSTITUTES.get(node.op_type)
    if attribute(node, "ceil_mode", 0) or (
        node.op_type == "AveragePool" and has_attribute(node, "dilations")
    ):
        return None
    if make is None or any(name not in shapes for name in (*node.input, *node.output) if name):
        return None
    found = Substitute(node)
    make(found, node, shapes)
    return found


def _conv(new: Substitute, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
    """Lay the windows side by side: ``(group, out, in) x (batch, group, in, places)``."""
    weight = node.input[1]
    out, per_group, *kernel = _numbers(shapes[weight])
    group = attribute(node, "group", 1)
    places = _numbers(shapes[node.output[0]][2:])
    windows = _windows(new, node, shapes, kernel)
    shape = [0, group, per_group * int(np.prod(kernel)), int(np.prod(places))]
    columns = new.emit("Reshape", windows, new.constant(shape))
    rows = new.emit("Reshape", weight, new.constant([group, out // group, -1]))
    product = new.emit("MatMul", rows, columns)
    bias = optional_input(node, 2)
    target = new.constant([0, out, *places])
    if bias is None:
        new.emit("Reshape", product, target, output=node.output[0])
        return
    product = new.emit("Reshape", product, target)
    column = new.emit("Reshape", bias, new.constant([1, out, *[1] * len(kernel)]))
    new.emit("Add", product, column, output=node.output[0])


def _windows(
    new: Substitute, node: onnx.NodeProto, shapes: Mapping[str, Shape], kernel: Sequence[int]
) -> str:
    """Return every kernel position's values, shape ``(batch, channels, positions, *places)``."""
    rank = len(kernel)
    ones = [1] * rank
    strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
    inside = _numbers(shapes[node.input[0]][2:])
    places = _numbers(shapes[node.output[0]][2:])
    reach = [
        (place - 1) * stride + (size - 1) * dilation + 1
        for place, stride, size, dilation in zip(places, strides, kernel, dilations, strict=True)
    ]
    before = _padding_before(node, inside, reach)
    # More than is given where windows end early is never read, less cannot be.
    after = [max(r - i - b, 0) for r, i, b in zip(reach, inside, before, strict=True)]
    padded = new.emit("Pad", node.input[0], new.constant([0, 0, *before, 0, 0, *after]))
    axes, steps = new.constant(range(2, 2 + rank)), new.constant(strides)
    parts = []
    for position in itertools.product(*map(range, kernel)):
        start = [at * dilation for at, dilation in zip(position, dilations, strict=True)]
        end = [
            first + (place - 1) * stride + 1
            for first, place, stride in zip(start, places, strides, strict=True)
        ]
        part = new.emit("Slice", padded, new.constant(start), new.constant(end), axes, steps)
        parts.append(new.emit("Unsqueeze", part, new.constant([2])))
    return new.emit("Concat", *parts, axis=2)


def _padding_before(node: onnx.NodeProto, inside: list[int], reach: list[int]) -> list[int]:
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto == "NOTSET":
        return attribute(node, "pads", [0] * 2 * len(inside))[: len(inside)]
    if auto == "VALID":
        return [0] * len(inside)
    total = [max(r - i, 0) for r, i in zip(reach, inside, strict=True)]
    return [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]


def _average_pool(new: Substitute, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
    """Sum each window and divide by how many values it counts."""
    kernel = attribute(node, "kernel_shape", [0])
    places = _numbers(shapes[node.output[0]][2:])
    windows = _windows(new, node, shapes, kernel)
    total = new.emit("ReduceSum", windows, new.constant([2]), keepdims=0)
    counts = np.full(places, float(np.prod(kernel)))
    if not attribute(node, "count_include_pad", 0):
        counts = np.prod(np.meshgrid(*_valid(node, shapes, kernel), indexing="ij"), axis=0)
    new.emit("Div", total, new.constant(counts, np.float64), output=node.output[0])


def _valid(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], kernel: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Return, for each axis, how many of a window's positions are no padding."""
    inside, places = (_numbers(shapes[name][2:]) for name in (node.input[0], node.output[0]))
    strides = attribute(node, "strides", [1] * len(kernel))
    reach = [
        (place - 1) * stride + size
        for place, stride, size in zip(places, strides, kernel, strict=True)
    ]
    found = []
    for axis, before in enumerate(_padding_before(node, inside, reach)):
        start = np.arange(places[axis]) * strides[axis] - before
        end = np.minimum(start + kernel[axis], inside[axis])
        found.append((end - np.maximum(start, 0)).astype(np.float64))
    return found


def _instance_normalization(
    new: Substitute, node: onnx.NodeProto, shapes: Mapping[str, Shape]
) -> None:
    x, scale, bias = node.input
    rank = len(shapes[x])
    axes, per_channel = new.constant(range(2, rank)), new.constant([1, -1, *[1] * (rank - 2)])
    centred = new.emit("Sub", x, new.emit("ReduceMean", x, axes))
    variance = new.emit("ReduceMean", new.emit("Mul", centred, centred), axes)
    epsilon = new.constant(attribute(node, "epsilon", 1e-5), np.float64)
    deviation = new.emit("Sqrt", new.emit("Add", variance, epsilon))
    normal = new.emit("Div", centred, deviation)
    scaled = new.emit("Mul", normal, new.emit("Reshape", scale, per_channel))
    new.emit("Add", scaled, new.emit("Reshape", bias, per_channel), output=node.output[0])


def _reduction(
    operator: str,
) -> "Callable[[Substitute, onnx.NodeProto, Mapping[str, Shape]], None]":
    def make(new: Substitute, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
        axes = new.constant(range(2, len(shapes[node.input[0]])))
        new.emit(operator, node.input[0], axes, output=node.output[0])

    return make


def _softplus(new: Substitute, node: onnx.NodeProto, _shapes: Mapping[str, Shape]) -> None:
    """``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    (x,) = node.input
    small = new.emit("Exp", new.emit("Neg", new.emit("Abs", x)))
    one, zero = new.constant(1.0, np.float64), new.constant(0.0, np.float64)
    rest = new.emit("Log", new.emit("Add", small, one))
    new.emit("Add", new.emit("Max", x, zero), rest, output=node.output[0])


def _numbers(shape: Shape) -> list[int]:
    return [int(dim) for dim in shape]


_SUBSTITUTES: dict[str, Callable[[Substitute, onnx.NodeProto, Mapping[str, Shape]], None]] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "GlobalAveragePool": _reduction("ReduceMean"),
    "GlobalMaxPool": _reduction("ReduceMax"),
    "InstanceNormalization": _instance_normalization,
    "Softplus": _softplus,
}
