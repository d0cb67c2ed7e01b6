"""What the rules of reductions and of movements along axes share."""

import numpy as np
import onnx

from central.modeling.training_graph.builder import Array, GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute, optional_input


def constant_list(
    builder: GraphBuilder, node: onnx.NodeProto, index: int, what: str
) -> list[int] | None:
    """Return the integers of a constant input, None if it was left out.

    Raises:
        UnsupportedModelError: The input is computed.
    """
    name = optional_input(node, index)
    if name is None:
        return None
    return [int(item) for item in np.ravel(builder.value(name, f"its {what}"))]


def reduced_axes(builder: GraphBuilder, node: onnx.NodeProto) -> list[int]:
    """Return the axes that a reduction of opset 18 sums over, sorted and counted from 0.

    Raises:
        UnsupportedModelError: They are computed, or there is none and that means none.
    """
    rank = builder.rank(node.input[0])
    axes = constant_list(builder, node, 1, "axes")
    if axes:
        return sorted(axis % rank for axis in axes)
    if attribute(node, "noop_with_empty_axes", 0):
        reason = "a reduction over no axis is not supported"
        raise UnsupportedModelError(reason, "leave the node out")
    return list(range(rank))


def swapped(builder: GraphBuilder, name: str, first: int, second: int, rank: int) -> str:
    """Exchange two axes of a tensor."""
    perm = list(range(rank))
    perm[first], perm[second] = second, first
    return builder.emit("Transpose", name, perm=perm)


def multiplied_along(builder: GraphBuilder, name: str, axis: int, rank: int, matrix: Array) -> str:
    """Multiply a constant matrix (new size, old size) with a tensor along one axis."""
    last = rank - 1
    if axis == last - 1:
        return builder.emit("MatMul", builder.constant(matrix), name)
    turned = builder.constant(np.ascontiguousarray(matrix.T))
    if axis == last:
        return builder.emit("MatMul", name, turned)
    product = builder.emit("MatMul", swapped(builder, name, axis, last, rank), turned)
    return swapped(builder, product, axis, last, rank)
