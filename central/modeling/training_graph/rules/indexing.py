"""Gradients of taking values by their positions, and of putting them there."""

from collections.abc import Sequence

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.registry import Gradient, rule


@rule("Gather")
def _gather(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    data, indices = node.input
    g = outer[0] or ""
    rank = builder.rank(data)
    axis = attribute(node, "axis", 0) % rank
    known = builder.values.get(indices)
    if known is not None and known.ndim == 0 and isinstance(builder.shape(data)[axis], int):
        return [_padded_slice(builder, data, axis, int(known), g)]
    positions = builder.emit("Unsqueeze", _counted(builder, data, indices, axis), _last(builder))
    zeros = builder.zeros(data)
    if axis == 0:
        return [builder.emit("ScatterND", zeros, positions, g, reduction="add")]
    taken = builder.rank(indices)
    front = [axis, *(other for other in range(rank) if other != axis)]
    moved = [*range(axis, axis + taken), *range(axis), *range(axis + taken, rank - 1 + taken)]
    spread = builder.emit(
        "ScatterND",
        builder.emit("Transpose", zeros, perm=front),
        positions,
        builder.emit("Transpose", g, perm=moved),
        reduction="add",
    )
    back = [int(item) for item in np.argsort(front)]
    return [builder.emit("Transpose", spread, perm=back)]


def _last(builder: GraphBuilder) -> str:
    return builder.integers(-1)


def _padded_slice(builder: GraphBuilder, data: str, axis: int, index: int, g: str) -> str:
    """One constant position: zeros before and behind are far cheaper than a scatter."""
    (size,) = builder.static(data, [axis])
    before = index % size
    row = builder.emit("Unsqueeze", g, builder.integers(axis))
    pads = [0] * (2 * builder.rank(data))
    pads[axis], pads[axis + builder.rank(data)] = before, size - 1 - before
    return builder.emit("Pad", row, builder.integers(*pads))


def _counted(builder: GraphBuilder, data: str, indices: str, axis: int) -> str:
    """Return the indices as int64, counted from the front."""
    size = builder.shape(data)[axis]
    known = builder.values.get(indices)
    if known is not None and (isinstance(size, int) or known.min(initial=0) >= 0):
        wide = known.astype(np.int64)
        return builder.constant(
            np.where(wide < 0, wide + size, wide) if isinstance(size, int) else wide
        )
    if not isinstance(size, int):
        reason = f"axis {axis} of {data!r}, which computed positions point into, follows the batch"
        raise UnsupportedModelError(reason)
    wide_name = builder.emit("Cast", indices, to=onnx.TensorProto.INT64)
    negative = builder.emit("Less", wide_name, builder.constant(0, np.int64))
    shifted = builder.emit("Add", wide_name, builder.constant(size, np.int64))
    return builder.emit("Where", negative, shifted, wide_name)


@rule("GatherElements")
def _gather_elements(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    data, indices = node.input
    axis = attribute(node, "axis", 0)
    zeros = builder.zeros(data)
    return [builder.emit("ScatterElements", zeros, indices, outer[0], axis=axis, reduction="add")]


@rule("GatherND")
def _gather_nd(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    if attribute(node, "batch_dims", 0):
        reason = "GatherND with batch_dims has no gradient here"
        raise UnsupportedModelError(reason)
    data, indices = node.input
    return [builder.emit("ScatterND", builder.zeros(data), indices, outer[0], reduction="add")]


@rule("TopK")
def _top_k(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    axis = attribute(node, "axis", -1)
    zeros = builder.zeros(node.input[0])
    return [builder.emit("ScatterElements", zeros, node.output[1], outer[0], axis=axis)]


@rule("ScatterElements", "ScatterND")
def _scatter(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    data, indices, updates = node.input
    reduction = attribute(node, "reduction", "none")
    if reduction not in {"none", "add"}:
        reason = f"the reduction {reduction!r} has no gradient here"
        raise UnsupportedModelError(reason)
    is_flat = node.op_type == "ScatterND"
    axis = None if is_flat else attribute(node, "axis", 0)
    found: list[Gradient] = [None, None, None]
    if data in builder.needed:
        found[0] = (
            outer[0]
            if reduction == "add"
            else builder.emit(node.op_type, outer[0], indices, builder.zeros(updates), axis=axis)
        )
    if updates in builder.needed:
        taken = "GatherND" if is_flat else "GatherElements"
        found[2] = builder.emit(taken, outer[0], indices, axis=axis)
    return found
