"""The functions that an .onnx file defines for itself, written out into its graph."""

import onnx
from onnx import inliner

from central.modeling.unsafe import Gate, UnsafeModelError
from schemas.errors import shown

Name = tuple[str, str]


def names(model: onnx.ModelProto) -> frozenset[Name]:
    """Return domain and name of each function."""
    return frozenset((function.domain, function.name) for function in model.functions)


def inlined(model: onnx.ModelProto, max_nodes: int) -> onnx.ModelProto:
    """Return the model with every call of its own functions written out.

    Raises:
        UnsafeModelError: A function calls itself, or the graph would have more than ``max_nodes``
            nodes; it is then not written out.
    """
    if not model.functions:
        return model
    bodies = {
        (function.domain, function.name): list(function.node) for function in model.functions
    }
    if len(bodies) != len(model.functions):
        raise UnsafeModelError(Gate.FUNCTIONS, "two functions have one name")
    sizes: dict[Name, int] = {}
    total = sum(_size(node, bodies, sizes, ()) for node in model.graph.node)
    if total > max_nodes:
        message = f"{total} nodes with its functions written out, at most {max_nodes} are allowed"
        raise UnsafeModelError(Gate.NODES, message)
    return inliner.inline_local_functions(model)


def _size(
    node: onnx.NodeProto,
    bodies: dict[Name, list[onnx.NodeProto]],
    sizes: dict[Name, int],
    above: tuple[Name, ...],
) -> int:
    name = (node.domain, node.op_type)
    if name not in bodies:
        return 1
    if name in above:
        raise UnsafeModelError(Gate.FUNCTIONS, f"the function {shown(node.op_type)} calls itself")
    if name not in sizes:
        sizes[name] = sum(_size(part, bodies, sizes, (*above, name)) for part in bodies[name])
    return sizes[name]
