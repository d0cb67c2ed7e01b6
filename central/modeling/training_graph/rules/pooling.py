"""Gradients of pools: over windows, and over all of an image."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from central.modeling.training_graph.builder import Array, GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute, optional_output
from central.modeling.training_graph.rules.kernel_gradients import cropped, padded
from central.modeling.training_graph.rules.registry import Gradient, forward, rule
from central.modeling.training_graph.rules.sliding import Windows, windows
from central.modeling.training_graph.terms import Term


def _windows(builder: GraphBuilder, node: onnx.NodeProto) -> Windows:
    kernel = attribute(node, "kernel_shape", [1])
    return windows(builder, node, node.input[0], node.output[0], kernel)


@forward("MaxPool")
def _with_indices(builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    """Ask for the place of each maximum: comparing values would count every one of a tie."""
    if attribute(node, "storage_order", 0):
        reason = "storage_order 1 is not supported"
        raise UnsupportedModelError(reason)
    if not optional_output(node, 1):
        del node.output[1:]
        node.output.append(builder.fresh(f"{node.output[0]}.places"))
    builder.nodes.append(node)
    return node


@rule("MaxPool")
def _max_pool(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    """Scatter to the places, which count through the whole tensor."""
    x, flat = node.input[0], builder.integers(-1)
    zeros = builder.emit("Reshape", builder.zeros(x), flat)
    places = builder.emit("Reshape", node.output[1], flat)
    values = builder.emit("Reshape", outer[0], flat)
    reduction = None if _windows(builder, node).disjoint else "add"
    scattered = builder.emit("ScatterElements", zeros, places, values, axis=0, reduction=reduction)
    return [builder.reshape(scattered, x)]


@rule("AveragePool")
def _average_pool(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    """Give each position its share of every window, by a transposed convolution with ones."""
    x, shape = node.input[0], _windows(builder, node)
    dtype = helper.tensor_dtype_to_np_dtype(builder.dtype(x))
    counts = _counts(shape, padding=bool(attribute(node, "count_include_pad", 0)))
    shares = builder.emit("Mul", outer[0], builder.constant(1 / counts, dtype))
    images = builder.emit("Reshape", shares, builder.integers(-1, 1, *shape.narrow))
    ones = builder.constant(np.ones((1, 1, *shape.kernel)), dtype)
    spread = builder.emit(
        "ConvTranspose",
        images,
        ones,
        kernel_shape=shape.kernel,
        strides=shape.strides,
        dilations=shape.dilations,
    )
    return [builder.reshape(_cut(builder, spread, shape), x)]


def _counts(shape: Windows, *, padding: bool) -> Array:
    """Return by what each window's sum was divided, shape ``narrow``.

    Args:
        shape: The windows; those of ceil_mode may hang over the end, which never counts.
        padding: Whether padding counts as positions.
    """
    along = []
    for axis, size in enumerate(shape.wide):
        first = -shape.before[axis] if padding else 0
        last = size + shape.after[axis] if padding else size
        starts = np.arange(shape.narrow[axis]) * shape.strides[axis] - shape.before[axis]
        steps = np.arange(shape.kernel[axis]) * shape.dilations[axis]
        places = starts[:, None] + steps
        along.append(((places >= first) & (places < last)).sum(axis=1))
    counts: Array = along[0]
    for more in along[1:]:
        counts = np.multiply.outer(counts, more)
    return np.maximum(counts, 1)


def _cut(builder: GraphBuilder, spread: str, shape: Windows) -> str:
    """Cut the span of all windows to the wide tensor: crop the padding, add what they leave."""
    if any(shape.before) or any(pad > 0 for pad in shape.needed_after):
        pairs = zip(shape.wide, shape.needed_after, strict=True)
        reached = [size + min(pad, 0) for size, pad in pairs]
        spread = cropped(builder, spread, shape.before, reached)
    missing = [-pad for pad in shape.needed_after]
    return padded(builder, spread, [0] * len(missing), missing)


@rule("GlobalAveragePool")
def _global_average_pool(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    x = node.input[0]
    size = math.prod(builder.static(x, range(2, builder.rank(x))))
    share = Term(builder, outer[0] or "", x) * (1 / size)
    return [builder.emit("Expand", share.name, builder.shape_of(x))]


@rule("GlobalMaxPool")
def _global_max_pool(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    """Share evenly among equal maxima, as ReduceMax does."""
    x, g = Term.of(builder, node.input[0]), Term(builder, outer[0] or "", node.input[0])
    axes = builder.integers(*range(2, builder.rank(x.name)))
    equal = x.apply("Equal", Term.of(builder, node.output[0]))
    hits = Term(builder, equal.apply("Cast", to=builder.dtype(x.name)).name, x.name)
    total = builder.emit("ReduceSum", hits.name, axes, keepdims=1)
    return [(hits * (g / Term(builder, total, x.name))).name]
