"""Gradients of convolutions and transposed convolutions, with one to three spatial axes."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.kernel_gradients import KernelGradient, fitted
from central.modeling.training_graph.rules.registry import Gradient, forward, rule
from central.modeling.training_graph.rules.sliding import Windows, state_pads, windows

#: A kernel of more positions is not turned round by a matrix of their squared number.
_MOST_TURNED = 49

#: With fewer input channels, ConvTranspose is as fast or faster.
_FEWEST_TURNED = 64


@forward("Conv", "ConvTranspose")
def _with_stated_pads(builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    state_pads(node, _windows(builder, node))
    builder.nodes.append(node)
    return node


@rule("Conv", "ConvTranspose")
def _convolution(
    builder: GraphBuilder, node: onnx.NodeProto, outputs: Sequence[str | None]
) -> list[Gradient]:
    """Each is the other's gradient by its input; the kernel's sees the two ends exchanged."""
    (gradient,) = outputs
    assert gradient is not None  # noqa: S101 - the only output
    x, weight = node.input[:2]
    shape = _windows(builder, node)
    groups = attribute(node, "group", 1)
    is_transposed = node.op_type == "ConvTranspose"
    back = _gathered if is_transposed else _spread
    wide, narrow = (gradient, x) if is_transposed else (x, gradient)
    return [
        back(builder, gradient, weight, shape, groups) if x in builder.needed else None,
        KernelGradient(builder, wide, narrow, weight, shape, groups).emit()
        if weight in builder.needed
        else None,
        *_bias(builder, node, gradient, shape),
    ]


def _windows(builder: GraphBuilder, node: onnx.NodeProto) -> Windows:
    kernel = builder.static(node.input[1])[2:]
    wide, narrow = node.input[0], node.output[0]
    if node.op_type == "ConvTranspose":
        wide, narrow = narrow, wide
    return windows(builder, node, wide, narrow, kernel)


def _bias(
    builder: GraphBuilder, node: onnx.NodeProto, gradient: str, shape: Windows
) -> list[Gradient]:
    if len(node.input) < len(("x", "weight", "bias")) or node.input[2] not in builder.needed:
        return []
    axes = builder.integers(0, *shape.axes)
    return [builder.emit("ReduceSum", gradient, axes, keepdims=0)]


def _spread(builder: GraphBuilder, gradient: str, weight: str, shape: Windows, groups: int) -> str:
    """Return the gradient of a convolution's input: a transposed convolution, in either form."""
    positions = math.prod(shape.kernel)
    if groups > 1 or not _faster_turned(builder, weight, shape):
        return builder.emit(
            "ConvTranspose",
            gradient,
            weight,
            group=groups,
            kernel_shape=shape.kernel,
            strides=shape.strides,
            dilations=shape.dilations,
            pads=(*shape.before, *shape.after),
            output_padding=shape.surplus,
        )
    return builder.emit(
        "Conv",
        gradient,
        _turned(builder, weight, positions),
        kernel_shape=shape.kernel,
        dilations=shape.dilations,
        pads=_turned_pads(shape),
    )


def _turned_pads(shape: Windows) -> list[int]:
    pads = zip(shape.reach * 2, (*shape.before, *shape.needed_after), strict=True)
    return [reach - 1 - pad for reach, pad in pads]


def _faster_turned(builder: GraphBuilder, weight: str, shape: Windows) -> bool:
    """Tell whether a convolution with the turned kernel is the faster form.

    It exists at stride 1. It needs no buffer of all windows, and took a third less time where an
    image has few positions; its product has a row per input channel, so few are slow.
    """
    if any(step > 1 for step in shape.strides) or min(_turned_pads(shape)) < 0:
        return False
    positions = math.prod(shape.kernel)
    return positions == 1 or (
        positions <= _MOST_TURNED
        and builder.static(weight, [1])[0] >= _FEWEST_TURNED
        and math.prod(shape.wide) <= math.prod(shape.narrow)
    )


def _turned(builder: GraphBuilder, weight: str, positions: int) -> str:
    """Return the kernel with its channels swapped and its positions in reverse order.

    A product with a permutation reverses them exactly, and faster than Slice or Gather.
    """
    out_channels, in_channels, *kernel = builder.static(weight)
    if positions > 1:
        rows = builder.emit("Reshape", weight, builder.integers(-1, positions))
        order = builder.constant(np.eye(positions)[::-1], _numpy_dtype(builder, weight))
        weight = builder.emit("MatMul", rows, order)
    target = builder.integers(out_channels, in_channels, positions)
    swapped = builder.emit("Transpose", builder.emit("Reshape", weight, target), perm=(1, 0, 2))
    return builder.emit("Reshape", swapped, builder.integers(in_channels, out_channels, *kernel))


def _numpy_dtype(builder: GraphBuilder, name: str) -> np.dtype[np.generic]:
    return helper.tensor_dtype_to_np_dtype(builder.dtype(name))


def _gathered(
    builder: GraphBuilder, gradient: str, weight: str, shape: Windows, groups: int
) -> str:
    """Return the gradient of a transposed convolution's input."""
    source, before, after = fitted(builder, gradient, shape)
    return builder.emit(
        "Conv",
        source,
        weight,
        group=groups,
        kernel_shape=shape.kernel,
        strides=shape.strides,
        dilations=shape.dilations,
        pads=(*before, *after),
    )
