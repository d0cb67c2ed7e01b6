"""Small .onnx files, as a person would bring them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_linear(path):
    """Write a model of one matrix ``w`` of ones, from four values to three logits; return path."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save_model(model, path)
    return path
