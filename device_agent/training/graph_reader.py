"""What a training graph says of itself, read before the runtime sees it.

Only what the runtime's standard operators can do is let through: one operator set, the default
domain's; no functions; no data outside of the file. Field numbers are those of onnx.proto3
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.training.protobuf import ProtobufError, Value, fields, integers, part, text
from schemas.limits import MIB

F32 = NDArray[np.float32]

FLOAT, INT64 = 1, 7
#: A graph that unpacks to more than this is not taken; protocol buffers end at 2 GiB.
MAX_UNPACKED_BYTES = 2047 * MIB
_DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})
_MAX_DEPTH = 8
_EXTERNAL = 1
_SHOWN = 60

_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_METADATA = 7, 8, 14
_MODEL_TRAINING, _MODEL_FUNCTIONS = 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_ATTRIBUTE_SPARSE = (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME = 1, 2, 4, 8
_TENSOR_RAW, _TENSOR_FILES, _TENSOR_LOCATION = 9, 13, 14


class GraphError(ValueError):
    """A training graph is not one, or asks for more than standard operators."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """An input or output: element type (ONNX's number) and sizes; None where one is free."""

    element: int
    sizes: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """What a checked graph takes and gives.

    Attributes:
        inputs: By name; initializers are not inputs.
        outputs: By name.
        metadata: The file's properties.
        nodes: Number of nodes, those of nested graphs included.
        initializers: The stored tensors, as views of the file.
    """

    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]
    metadata: dict[str, str]
    nodes: int
    initializers: dict[str, memoryview]

    def floats(self, name: str) -> F32 | None:
        """Return a stored float32 tensor, or None when there is none of that name.

        Raises:
            GraphError: Its sizes and its values do not fit together.
        """
        found = self.initializers.get(name)
        return None if found is None else _floats(name, found)


def read_graph(file: bytes) -> GraphDescription:
    """Return what an ONNX file holds, once nothing in it is forbidden.

    Raises:
        GraphError: The text names what is wrong or not allowed, and where.
    """
    try:
        return _read(memoryview(file))
    except ProtobufError as error:
        message = f"graph: not an ONNX file: {error}"
        raise GraphError(message) from error


def _read(file: memoryview) -> GraphDescription:
    graph: memoryview | None = None
    metadata: dict[str, str] = {}
    for number, value in fields(file):
        if number == _MODEL_GRAPH:
            graph = part(value)
        elif number == _MODEL_OPSETS:
            _check_domain(_string(part(value), 1), "operator set")
        elif number == _MODEL_METADATA:
            metadata[_string(part(value), 1)] = _string(part(value), 2)
        elif number in {_MODEL_TRAINING, _MODEL_FUNCTIONS}:
            message = "graph: it brings functions or training information, which are not allowed"
            raise GraphError(message)
    if graph is None:
        message = "graph: the file holds none"
        raise GraphError(message)
    return _describe(graph, metadata)


def _describe(graph: memoryview, metadata: dict[str, str]) -> GraphDescription:
    nodes = _check_graph(graph, 0)
    stored = {_tensor_name(part(v)): part(v) for n, v in fields(graph) if n == _GRAPH_INITIALIZER}
    types = {
        number: dict(_value_info(part(value)) for key, value in fields(graph) if key == number)
        for number in (_GRAPH_INPUT, _GRAPH_OUTPUT)
    }
    inputs = {name: kind for name, kind in types[_GRAPH_INPUT].items() if name not in stored}
    return GraphDescription(inputs, types[_GRAPH_OUTPUT], metadata, nodes, stored)


def _check_graph(graph: memoryview, depth: int) -> int:
    """Check a graph and those nested in it; return the number of nodes."""
    if depth > _MAX_DEPTH:
        message = f"graph: nested deeper than {_MAX_DEPTH}"
        raise GraphError(message)
    nodes = 0
    for number, value in fields(graph):
        if number == _GRAPH_NODE:
            nodes += 1 + _check_node(part(value), depth)
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(part(value))
        elif number == _GRAPH_SPARSE:
            _refuse_sparse()
    return nodes


def _check_node(node: memoryview, depth: int) -> int:
    _check_domain(_string(node, _NODE_DOMAIN), f"operator {_string(node, _NODE_OPERATOR)!r}")
    nested = 0
    for number, value in fields(node):
        if number == _NODE_ATTRIBUTE:
            nested += sum(_check_attribute(*one, depth) for one in fields(part(value)))
    return nested


def _check_attribute(number: int, value: Value, depth: int) -> int:
    if number in _ATTRIBUTE_GRAPHS:
        return _check_graph(part(value), depth + 1)
    if number in _ATTRIBUTE_TENSORS:
        _check_tensor(part(value))
    elif number in _ATTRIBUTE_SPARSE:
        _refuse_sparse()
    return 0


def _check_tensor(tensor: memoryview) -> None:
    for number, value in fields(tensor):
        if number == _TENSOR_FILES or (number == _TENSOR_LOCATION and value == _EXTERNAL):
            name = _tensor_name(tensor)[:_SHOWN]
            message = f"graph: tensor {name!r} lies outside of the file, which is not allowed"
            raise GraphError(message)


def _check_domain(domain: str, what: str) -> None:
    if domain not in _DEFAULT_DOMAINS:
        message = (
            f"graph: {what[:_SHOWN]} of domain {domain[:_SHOWN]!r}; only standard operators "
            "are allowed"
        )
        raise GraphError(message)


def _refuse_sparse() -> None:
    message = "graph: it holds a sparse tensor, which is not allowed"
    raise GraphError(message)


def _value_info(info: memoryview) -> tuple[str, TensorType]:
    name, kind = "", TensorType(0, ())
    for number, value in fields(info):
        if number == 1:
            name = text(value)
        elif number == 2:  # noqa: PLR2004 - TypeProto
            kind = _tensor_type(part(value))
    return name, kind


def _tensor_type(kind: memoryview) -> TensorType:
    element, sizes = 0, list[int | None]()
    tensor = next((part(value) for number, value in fields(kind) if number == 1), None)
    for number, value in fields(tensor) if tensor is not None else ():
        if number == 1:
            element = integers(value)[0]
        elif number == 2:  # noqa: PLR2004 - TensorShapeProto
            sizes = [_size(part(one)) for _, one in fields(part(value))]
    return TensorType(element, tuple(sizes))


def _size(dimension: memoryview) -> int | None:
    return next((integers(value)[0] for number, value in fields(dimension) if number == 1), None)


def _floats(name: str, tensor: memoryview) -> F32 | None:
    sizes: list[int] = []
    element, raw = 0, memoryview(b"")
    for number, value in fields(tensor):
        if number == _TENSOR_DIMS:
            sizes += integers(value)
        elif number == _TENSOR_TYPE:
            element = integers(value)[0]
        elif number in {_TENSOR_RAW, _TENSOR_FLOATS}:
            raw = part(value)
    if element != FLOAT:
        return None
    try:
        return np.frombuffer(raw, dtype="<f4").reshape(sizes).astype(np.float32, copy=False)
    except ValueError as error:
        message = f"graph: tensor {name[:_SHOWN]!r}: {error}"
        raise GraphError(message) from error


def _tensor_name(tensor: memoryview) -> str:
    return _string(tensor, _TENSOR_NAME)


def _string(message: memoryview, wanted: int) -> str:
    found = [value for number, value in fields(message) if number == wanted]
    return text(found[-1]) if found else ""
