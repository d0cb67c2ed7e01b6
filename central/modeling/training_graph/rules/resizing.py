"""Gradient of Resize, in every mode that works on one axis after the other."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from central.modeling.training_graph.builder import IR_VERSION, OPSET, Array, GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute, optional_input
from central.modeling.training_graph.rules.axes import multiplied_along
from central.modeling.training_graph.rules.registry import Gradient, rule


@rule("Resize")
def _resize(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    if attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        reason = "tf_crop_and_resize has no gradient here"
        raise UnsupportedModelError(reason)
    data, g = node.input[0], outer[0] or ""
    before, after = builder.shape(data), builder.shape(node.output[0])
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new:
            continue
        if not (isinstance(old, int) and isinstance(new, int)):
            reason = f"axis {axis} of {data!r} follows the batch and is resized"
            raise UnsupportedModelError(reason)
        matrix = _weights(node, _scale(builder, node, axis), old, new)
        matrix = matrix.astype(helper.tensor_dtype_to_np_dtype(builder.dtype(data)))
        g = multiplied_along(builder, g, axis, len(before), matrix)
    return [g]


def _scale(builder: GraphBuilder, node: onnx.NodeProto, axis: int) -> float | None:
    """Return the scale that the node gives for an axis, None if it gives sizes."""
    name = optional_input(node, 2)
    if name is None:
        return None
    scales = builder.value(name, "its scales")
    if not scales.size:
        return None
    axes = attribute(node, "axes", list(range(builder.rank(node.input[0]))))
    rank = builder.rank(node.input[0])
    return float(scales[[item % rank for item in axes].index(axis)])


def _weights(node: onnx.NodeProto, scale: float | None, old: int, new: int) -> Array:
    """Return the matrix (old, new) of the weights: the same node run on the unit vectors."""
    import onnxruntime  # noqa: PLC0415 - takes 0.1 s, only where a graph is built

    lone = onnx.NodeProto()
    lone.CopyFrom(node)
    lone.ClearField("input")
    lone.ClearField("attribute")
    lone.attribute.extend(item for item in node.attribute if item.name != "axes")
    lone.input.extend(["units", "", "scales"] if scale else ["units", "", "", "sizes"])
    lone.output[0] = "weights"
    constants = (
        [helper.make_tensor("scales", onnx.TensorProto.FLOAT, [4], [1, 1, 1, scale])]
        if scale
        else [helper.make_tensor("sizes", onnx.TensorProto.INT64, [4], [1, 1, old, new])]
    )
    shape = [1, 1, old, old]
    units = helper.make_tensor_value_info("units", onnx.TensorProto.FLOAT, shape)
    end = helper.make_empty_tensor_value_info("weights")
    graph = helper.make_graph([lone], "weights", [units], [end], constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (weights,) = session.run(None, {"units": np.eye(old, dtype=np.float32).reshape(shape)})
    return np.asarray(weights).reshape(old, new)
