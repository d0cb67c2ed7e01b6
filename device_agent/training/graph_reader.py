"""What a training graph says of itself, read before the runtime sees it.

Only what the runtime's standard operators can do is let through: one operator set, the default
domain's; no functions; no graphs within nodes, so that every run ends; no data outside of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.training import onnx_forms as onnx
from device_agent.training.protobuf import (
    Form,
    ProtobufError,
    UnknownFieldError,
    fields,
    integers,
    part,
    small,
    text,
)

F32 = NDArray[np.float32]

FLOAT, INT64 = 1, 7
_DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})
_SHOWN = 60


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
        nodes: Number of nodes.
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
    except UnknownFieldError as error:
        what = onnx.FORBIDDEN.get((error.form, error.number), str(error))
        message = f"graph: it brings {what}, which is not allowed"
        raise GraphError(message) from error
    except ProtobufError as error:
        message = f"graph: not an ONNX file: {error}"
        raise GraphError(message) from error


def _read(file: memoryview) -> GraphDescription:
    graph: memoryview | None = None
    metadata: dict[str, str] = {}
    for number, value in fields(file, onnx.MODEL):
        if number == onnx.MODEL_GRAPH:
            graph = part(value)
        elif number == onnx.MODEL_OPSETS:
            domain = _string(part(value), onnx.OPSET, onnx.OPSET_DOMAIN)
            _check_domain(domain, "operator set")
        elif number == onnx.MODEL_METADATA:
            name, content = onnx.PROPERTY_KEY, onnx.PROPERTY_VALUE
            key = _string(part(value), onnx.PROPERTY, name)
            metadata[key] = _string(part(value), onnx.PROPERTY, content)
    if graph is None:
        message = "graph: the file holds none"
        raise GraphError(message)
    return _describe(graph, metadata)


def _describe(graph: memoryview, metadata: dict[str, str]) -> GraphDescription:
    nodes, stored = 0, dict[str, memoryview]()
    types: dict[int, dict[str, TensorType]] = {
        number: {} for number in (onnx.GRAPH_INPUT, onnx.GRAPH_OUTPUT, onnx.GRAPH_VALUE)
    }
    for number, value in fields(graph, onnx.GRAPH):
        if number == onnx.GRAPH_NODE:
            nodes += 1
            _check_node(part(value))
        elif number == onnx.GRAPH_INITIALIZER:
            _check_tensor(part(value))
            stored[_tensor_name(part(value))] = part(value)
        elif number in types:
            name, kind = _value_info(part(value))
            types[number][name] = kind
    inputs = {name: kind for name, kind in types[onnx.GRAPH_INPUT].items() if name not in stored}
    return GraphDescription(inputs, types[onnx.GRAPH_OUTPUT], metadata, nodes, stored)


def _check_node(node: memoryview) -> None:
    operator = _string(node, onnx.NODE, onnx.NODE_OPERATOR)
    _check_domain(_string(node, onnx.NODE, onnx.NODE_DOMAIN), f"operator {operator!r}")
    for number, value in fields(node, onnx.NODE):
        if number == onnx.NODE_ATTRIBUTE:
            _check_attribute(part(value))


def _check_attribute(attribute: memoryview) -> None:
    for number, value in fields(attribute, onnx.ATTRIBUTE):
        if number in onnx.ATTRIBUTE_TENSORS:
            _check_tensor(part(value))
        elif number == onnx.ATTRIBUTE_TYPE and small(value) not in onnx.ATTRIBUTE_TYPES:
            message = f"graph: an attribute is of type {value}, which is not allowed"
            raise GraphError(message)


def _check_tensor(tensor: memoryview) -> None:
    for number, value in fields(tensor, onnx.TENSOR):
        if number == onnx.TENSOR_TYPE:
            small(value)
        elif number == onnx.TENSOR_FILES or (number == onnx.TENSOR_LOCATION and small(value)):
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


def _value_info(info: memoryview) -> tuple[str, TensorType]:
    name, kind = "", TensorType(0, ())
    for number, value in fields(info, onnx.VALUE):
        if number == onnx.VALUE_NAME:
            name = text(value)
        elif number == onnx.VALUE_TYPE:
            kind = _type(part(value))
    return name, kind


def _type(kind: memoryview) -> TensorType:
    found = dict(fields(kind, onnx.TYPE)).get(onnx.TYPE_TENSOR)
    return TensorType(0, ()) if found is None else _tensor_type(part(found))


def _tensor_type(tensor: memoryview) -> TensorType:
    element, sizes = 0, list[int | None]()
    for number, value in fields(tensor, onnx.TENSOR_KIND):
        if number == onnx.KIND_ELEMENT:
            element = small(value)
        elif number == onnx.KIND_SHAPE:
            sizes = [_size(part(one)) for _, one in fields(part(value), onnx.SHAPE)]
    return TensorType(element, tuple(sizes))


def _size(dimension: memoryview) -> int | None:
    found = dict(fields(dimension, onnx.DIMENSION))
    size = found.get(onnx.DIMENSION_SIZE)
    if size is None:
        return None
    if onnx.DIMENSION_NAME in found:
        reason = "dimension: a size and a name"
        raise ProtobufError(reason)
    return integers(size)[0]


def _floats(name: str, tensor: memoryview) -> F32 | None:
    sizes: list[int] = []
    element, raw = 0, memoryview(b"")
    for number, value in fields(tensor, onnx.TENSOR):
        if number == onnx.TENSOR_DIMS:
            sizes += integers(value)
        elif number == onnx.TENSOR_TYPE:
            element = small(value)
        elif number in {onnx.TENSOR_RAW, onnx.TENSOR_FLOATS}:
            raw = part(value)
    if element != FLOAT:
        return None
    try:
        return np.frombuffer(raw, dtype="<f4").reshape(sizes).astype(np.float32, copy=False)
    except (ValueError, OverflowError) as error:
        message = f"graph: tensor {name[:_SHOWN]!r}: {error}"
        raise GraphError(message) from error


def _tensor_name(tensor: memoryview) -> str:
    return _string(tensor, onnx.TENSOR, onnx.TENSOR_NAME)


def _string(message: memoryview, form: Form, wanted: int) -> str:
    found = [value for number, value in fields(message, form) if number == wanted]
    return text(found[-1]) if found else ""
