"""Gradients of Slice and Pad."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from central.modeling.training_graph.builder import Array, GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.axes import constant_list, multiplied_along
from central.modeling.training_graph.rules.registry import Gradient, rule

Positions = NDArray[np.int64]
Mode = Literal["edge", "reflect", "wrap"]

#: Exporters write "to the end" as one of the largest integers.
_TO_THE_END = 1 << 30


@rule("Slice")
def _slice(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    data, g = node.input[0], outer[0] or ""
    shape = builder.shape(data)
    rank = len(shape)
    starts = constant_list(builder, node, 1, "starts") or []
    ends = constant_list(builder, node, 2, "ends") or []
    axes = constant_list(builder, node, 3, "axes") or list(range(len(starts)))
    steps = constant_list(builder, node, 4, "steps") or [1] * len(starts)
    pads = [0] * (2 * rank)
    for axis, *bounds in zip((axis % rank for axis in axes), starts, ends, steps, strict=True):
        if bounds[0] == 0 and bounds[1] > _TO_THE_END and bounds[2] == 1:
            continue
        (size,) = builder.static(data, [axis])
        taken = _positions(size, *bounds)
        if bounds[2] == 1 and len(taken):
            pads[axis], pads[axis + rank] = int(taken[0]), size - 1 - int(taken[-1])
        else:
            g = multiplied_along(
                builder, g, axis, rank, _spread(size, taken, _type(builder, data))
            )
    return [builder.emit("Pad", g, builder.integers(*pads)) if any(pads) else g]


def _positions(size: int, start: int, end: int, step: int) -> Positions:
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step > 0:
        return np.arange(min(max(start, 0), size), min(max(end, 0), size), step)
    return np.arange(min(max(start, -1), size - 1), min(max(end, -1), size - 1), step)


def _spread(size: int, taken: Positions, dtype: np.dtype[Any]) -> Array:
    """Return the matrix (size, taken) that puts each value where it was taken from."""
    matrix = np.zeros((size, len(taken)), dtype)
    matrix[taken, np.arange(len(taken))] = 1
    return matrix


def _type(builder: GraphBuilder, name: str) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(builder.dtype(name))


@rule("Pad")
def _pad(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    data, g = node.input[0], outer[0] or ""
    rank = builder.rank(data)
    pads = constant_list(builder, node, 1, "pads") or []
    axes = constant_list(builder, node, 3, "axes") or list(range(rank))
    mode = attribute(node, "mode", "constant")
    sides = {
        axis % rank: (pads[index], pads[index + len(axes)])
        for index, axis in enumerate(axes)
        if pads[index] or pads[index + len(axes)]
    }
    if not sides:
        return [g]
    if mode == "constant":
        return [_cut(builder, g, rank, sides)]
    for axis, (before, after) in sides.items():
        (size,) = builder.static(data, [axis])
        if before < 0 or after < 0:
            reason = f"negative pads in mode {mode!r} have no gradient here"
            raise UnsupportedModelError(reason)
        taken = np.pad(np.arange(size), (before, after), mode=cast("Mode", mode))
        g = multiplied_along(builder, g, axis, rank, _spread(size, taken, _type(builder, data)))
    return [g]


def _cut(builder: GraphBuilder, g: str, rank: int, sides: dict[int, tuple[int, int]]) -> str:
    if any(pad < 0 for both in sides.values() for pad in both):
        pads = [0] * (2 * rank)
        for axis, (before, after) in sides.items():
            pads[axis], pads[axis + rank] = -before, -after
        return builder.emit("Pad", g, builder.integers(*pads))
    return builder.emit(
        "Slice",
        g,
        builder.integers(*(before for before, _ in sides.values())),
        builder.integers(*(-after or np.iinfo(np.int64).max for _, after in sides.values())),
        builder.integers(*sides),
    )
