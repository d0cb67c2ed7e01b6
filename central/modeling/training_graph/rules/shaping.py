"""Gradients of operators that move values and compute none."""

from collections.abc import Sequence

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.axes import constant_list
from central.modeling.training_graph.rules.registry import Gradient, rewrite, rule
from central.modeling.training_graph.rules.unary import unary
from central.modeling.training_graph.terms import Term


@unary("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return Term(x.builder, x.builder.reshape(g.name, x.name), x.name)


@unary("Transpose")
def _transpose(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    perm = attribute(node, "perm", list(range(x.builder.rank(x.name)))[::-1])
    return g.apply("Transpose", perm=[int(axis) for axis in np.argsort(perm)])


@unary("Trilu")
def _trilu(g: Term, _x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    return g.apply_to("Trilu", *node.input[1:2], upper=attribute(node, "upper", 1))


@unary("ReverseSequence")
def _reverse_sequence(g: Term, _x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    return g.apply_to(
        "ReverseSequence",
        node.input[1],
        batch_axis=attribute(node, "batch_axis", 1),
        time_axis=attribute(node, "time_axis", 0),
    )


@unary("Tile")
def _tile(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    """Give each repetition an axis of its own, and sum over those."""
    builder = x.builder
    repeats = constant_list(builder, node, 1, "repeats") or []
    dims: list[int] = []
    summed = []
    for dim, count in zip(builder.shape(x.name), repeats, strict=True):
        if count > 1:
            summed.append(len(dims))
            dims.append(count)
        dims.append(dim if isinstance(dim, int) else -1)
    if not summed:
        return g
    if dims.count(-1) > 1:
        reason = f"the shape {builder.shape(x.name)} of what is repeated follows the batch twice"
        raise UnsupportedModelError(reason)
    split = g.apply_to("Reshape", builder.integers(*dims))
    return split.apply_to("ReduceSum", builder.integers(*summed), keepdims=0)


@unary("SpaceToDepth")
def _space_to_depth(g: Term, _x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    return g.apply("DepthToSpace", blocksize=attribute(node, "blocksize", 1))


@unary("DepthToSpace")
def _depth_to_space(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    builder, block = x.builder, attribute(node, "blocksize", 1)
    channels, height, width = builder.static(x.name, [1, 2, 3])
    groups = channels // block**2
    split = g.apply_to("Reshape", builder.integers(-1, groups, height, block, width, block))
    is_column_first = attribute(node, "mode", "DCR") == "CRD"
    perm = [0, 1, 3, 5, 2, 4] if is_column_first else [0, 3, 5, 1, 2, 4]
    moved = split.apply("Transpose", perm=perm)
    return moved.apply_to("Reshape", builder.integers(-1, channels, height, width))


@rule("Concat")
def _concat(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    axis = attribute(node, "axis", 0) % builder.rank(node.output[0])
    sizes = [builder.shape(name)[axis] for name in node.input]
    if not all(isinstance(size, int) for size in sizes):
        return _concat_along_batch(builder, node, outer[0] or "", axis)
    found: list[Gradient] = []
    start = 0
    for name, size in zip(node.input, sizes, strict=True):
        end = start + int(size)
        bounds = (builder.integers(start), builder.integers(end), builder.integers(axis))
        needed = name in builder.needed
        found.append(builder.emit("Slice", outer[0], *bounds) if needed else None)
        start = end
    return found


def _concat_along_batch(
    builder: GraphBuilder, node: onnx.NodeProto, g: str, axis: int
) -> Sequence[Gradient]:
    sizes = [builder.emit("Shape", name, start=axis, end=axis + 1) for name in node.input]
    split = builder.emit("Concat", *sizes, axis=0)
    return builder.emit_many("Split", g, split, outputs=len(sizes), axis=axis)


@rule("Split")
def _split(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    parts = [g or builder.zeros(name) for g, name in zip(outer, node.output, strict=True)]
    return [builder.emit("Concat", *parts, axis=attribute(node, "axis", 0))]


@rewrite("SplitToSequence")
def _split_to_sequence(builder: GraphBuilder, node: onnx.NodeProto) -> None:
    """What torch writes for chunk and unbind: a list of tensors, taken out one by one."""
    name, axis = node.input[0], attribute(node, "axis", 0)
    axis %= builder.rank(name)
    (total,) = builder.static(name, [axis])
    keeps_axis = len(node.input) > 1 or bool(attribute(node, "keepdims", 1))
    sizes = _part_sizes(builder, node, total)
    parts = [builder.fresh("part") for _ in sizes]
    builder.emit_many("Split", name, builder.integers(*sizes), outputs=parts, axis=axis)
    if not keeps_axis:
        parts = [builder.emit("Squeeze", part, builder.integers(axis)) for part in parts]
    builder.saved[node.output[0]] = tuple(parts)


def _part_sizes(builder: GraphBuilder, node: onnx.NodeProto, total: int) -> list[int]:
    given = constant_list(builder, node, 1, "sizes")
    if given is None:
        return [1] * total
    if builder.rank(node.input[1]):
        return given
    whole, rest = divmod(total, given[0])
    return [given[0]] * whole + [rest] * bool(rest)


@rewrite("SequenceAt")
def _sequence_at(builder: GraphBuilder, node: onnx.NodeProto) -> None:
    parts = builder.saved.get(node.input[0])
    if parts is None:
        reason = "only lists that SplitToSequence makes are supported"
        raise UnsupportedModelError(reason)
    (position,) = constant_list(builder, node, 1, "position") or [0]
    builder.emit("Identity", parts[position], output=node.output[0])
