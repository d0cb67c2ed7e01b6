"""How far the influence of a trainable goes."""

import onnx

from central.modeling.training_graph.builder import FLOATS, GraphBuilder
from central.modeling.training_graph.nodes import STANDARD_DOMAINS
from central.modeling.training_graph.rules import stops


def reached_outputs(builder: GraphBuilder, node: onnx.NodeProto) -> list[str]:
    """Return a node's outputs through which a gradient must pass, given what its inputs are.

    Args:
        builder: Its ``needed`` holds what the nodes before this one added.
        node: In the order of execution.
    """
    if builder.needed.isdisjoint(node.input):
        return []
    if node.domain in STANDARD_DOMAINS and stops(node.op_type):
        return []
    return [
        name
        for name in node.output
        if name and builder.dtypes.get(name, onnx.TensorProto.FLOAT) in FLOATS
    ]
