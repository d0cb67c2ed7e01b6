"""What each value of a graph would take, told from the graph alone and bounded."""

import math
from collections.abc import Iterator

import onnx
from onnx import shape_inference

from central.modeling.tensors import ITEM_BYTES
from central.modeling.unsafe import Gate, UnsafeModelError
from schemas.errors import shown

#: The free axes of the inputs while shapes are looked at.
BATCH = 2


def check_shapes(model: onnx.ModelProto, value_bytes: int) -> None:
    """Refuse a graph that has a value of more than ``value_bytes`` for a batch of two.

    Shapes that cannot be told from the graph are left to the run within limits that follows.

    Raises:
        UnsafeModelError: A value is too large, or the types or shapes do not fit each other.
    """
    for name, size in sizes(model):
        if size > value_bytes:
            message = (
                f"the value {shown(name)} takes {size} bytes, at most {value_bytes} are allowed"
            )
            raise UnsafeModelError(Gate.SHAPES, message)


def sizes(model: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """Yield each value whose shape can be told, and its bytes for a batch of two."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = BATCH
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")  # a claim, not yet a fact
    del fixed.graph.value_info[:]
    try:
        inferred = shape_inference.infer_shapes(
            fixed, check_type=True, strict_mode=True, data_prop=True
        )
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UnsafeModelError(Gate.SHAPES, f"they do not fit: {first[:300]}") from error
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        size = _bytes(value)
        if size is not None:
            yield value.name, size


def _bytes(value: onnx.ValueInfoProto) -> int | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or kind.elem_type not in ITEM_BYTES:
        return None
    if not all(dimension.HasField("dim_value") for dimension in kind.shape.dim):
        return None
    item_bytes: int = ITEM_BYTES[kind.elem_type]
    return item_bytes * math.prod(int(dimension.dim_value) for dimension in kind.shape.dim)
