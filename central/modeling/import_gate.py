"""What an .onnx file must be before anything else looks at it.

The file comes from a person, perhaps from the net. Every gate refuses by its name; the order is
from the cheapest look to the dearest, and nothing is allocated by what the file only claims. Run
it in a process with limits (``central.modeling.limits``): a parser may have faults of its own.
The checks of ``onnx.checker`` alone do not suffice: it accepts operators of unknown domains, and a
file of 66 bytes may ask for 320 GB.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from central.modeling import functions
from central.modeling.operators import FORWARD_OPERATORS
from central.modeling.shapes import check_shapes
from central.modeling.tensors import check_tensor, tensors_of
from central.modeling.unsafe import Gate, UnsafeModelError
from schemas.errors import shown
from schemas.limits import MIB

MAX_NODES = 20_000
MAX_INITIALIZERS = 10_000
_OLDEST_OPSET, _OLDEST_IR = 7, 3
_STANDARD = frozenset({"", "ai.onnx"})
_SUBGRAPHS = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS})
_TENSORS = frozenset(
    {
        onnx.AttributeProto.TENSOR,
        onnx.AttributeProto.TENSORS,
        onnx.AttributeProto.SPARSE_TENSOR,
        onnx.AttributeProto.SPARSE_TENSORS,
    }
)


@dataclass(frozen=True, slots=True)
class GateLimits:
    """How large a file may be, and what it may ask for.

    Attributes:
        file_bytes: Size of the file.
        value_bytes: Any one tensor that the graph computes for a batch of two examples.
    """

    file_bytes: int = 512 * MIB
    value_bytes: int = 1024 * MIB


def read_model(path: Path, limits: GateLimits | None = None) -> onnx.ModelProto:
    """Return the model in a file that passed every gate, its own functions written out.

    Args:
        path: From this program's own settings or command line, never from a message.
        limits: How large it may be.

    Raises:
        UnsafeModelError: A gate refused; its ``gate`` says which.
    """
    bounds = limits or GateLimits()
    try:
        model = _parsed(_content(path, bounds.file_bytes))
        _check_versions(model)
        _check_contents(model)
        inlined = functions.inlined(model, MAX_NODES)
        _check_nodes(inlined.graph)
        _check_names(inlined.graph)
        _check_by_onnx(inlined)
        check_shapes(inlined, bounds.value_bytes)
    except UnsafeModelError as error:
        raise error.of(path.name) from error
    return inlined


def _content(path: Path, limit: int) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe would hold us up before it can be looked at.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        message = f"it cannot be read: {error.strerror}"
        raise UnsafeModelError(Gate.FILE, message) from error
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):
        os.close(number)
        raise UnsafeModelError(Gate.FILE, "it is not a regular file")
    with os.fdopen(number, "rb") as file:
        if status.st_size > limit:
            message = f"{status.st_size} bytes, at most {limit} are allowed"
            raise UnsafeModelError(Gate.SIZE, message)
        return file.read(limit)


def _parsed(content: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        message = "it is not an ONNX model: not protobuf, cut off, or nested too deep"
        raise UnsafeModelError(Gate.FORMAT, message) from error
    if not model.graph.node or not model.graph.output:
        raise UnsafeModelError(Gate.FORMAT, "it is not an ONNX model: it has no node or no output")
    return model


def _check_versions(model: onnx.ModelProto) -> None:
    versions = [entry.version for entry in model.opset_import if entry.domain in _STANDARD]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1 or not _OLDEST_OPSET <= versions[0] <= newest:
        message = (
            f"opset {versions or 'not given'}, it must be one from {_OLDEST_OPSET} to {newest}; "
            "export with opset 18"
        )
        raise UnsafeModelError(Gate.OPSET, message)
    if not _OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
        message = f"version {model.ir_version}, it must be {_OLDEST_IR} to {onnx.IR_VERSION}"
        raise UnsafeModelError(Gate.IR_VERSION, message)
    if model.training_info:
        raise UnsafeModelError(Gate.FORMAT, "it has training information; export the model alone")


def _check_contents(model: onnx.ModelProto) -> None:
    """Look at all that may lie in the file: tensors, and what the nodes are allowed to be."""
    graph = model.graph
    nodes = len(graph.node) + sum(len(function.node) for function in model.functions)
    if nodes > MAX_NODES:
        raise UnsafeModelError(Gate.NODES, f"{nodes} nodes, at most {MAX_NODES} are allowed")
    if graph.sparse_initializer:
        raise UnsafeModelError(Gate.SPARSE, "it has sparse initializers; export dense ones")
    if len(graph.initializer) > MAX_INITIALIZERS:
        message = f"{len(graph.initializer)}, at most {MAX_INITIALIZERS} are allowed"
        raise UnsafeModelError(Gate.INITIALIZER, message)
    own = functions.names(model)
    for node in _all_nodes(model):
        _check_node(node, own)
    for tensor in graph.initializer:
        check_tensor(tensor, f"initializer {shown(tensor.name)}")


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def _check_node(node: onnx.NodeProto, own: frozenset[tuple[str, str]]) -> None:
    where = f"node {shown(node.name or next(iter(node.output), ''))} ({shown(node.op_type)})"
    for attribute in node.attribute:
        if attribute.type in _SUBGRAPHS or attribute.HasField("g") or attribute.graphs:
            message = f"{where} holds a graph of its own; loops and branches are not supported"
            raise UnsafeModelError(Gate.SUBGRAPH, message)
        if attribute.type in _TENSORS or attribute.HasField("t"):
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise UnsafeModelError(Gate.SPARSE, f"{where} has a sparse tensor")
            for tensor in tensors_of(attribute):
                check_tensor(tensor, f"{where}, attribute {shown(attribute.name)}")
    if (node.domain, node.op_type) in own:
        return
    if node.domain not in _STANDARD:
        message = f"{where} is of the domain {shown(node.domain)}; only standard ones are allowed"
        raise UnsafeModelError(Gate.DOMAIN, message)


def _check_nodes(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if node.op_type not in FORWARD_OPERATORS:
            message = (
                f"node {shown(node.name or next(iter(node.output), ''))}: the operator "
                f"{shown(node.op_type)} is not among those allowed"
            )
            raise UnsafeModelError(Gate.OPERATOR, message)


def _check_names(graph: onnx.GraphProto) -> None:
    """Refuse a name that two things have, and a value that is used before it is there."""
    known: set[str] = {""}
    initializers = {tensor.name for tensor in graph.initializer}
    given = [tensor.name for tensor in graph.initializer]
    given += [value.name for value in graph.input if value.name not in initializers]
    for name in given:
        _add(known, name)
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                _refuse_unknown(name, made)
        for name in filter(None, node.output):
            _add(known, name)
    for value in graph.output:
        if value.name not in known:
            _refuse_unknown(value.name, made)


def _add(known: set[str], name: str) -> None:
    if name in known:
        raise UnsafeModelError(Gate.NAMES, f"two values have the name {shown(name)}")
    known.add(name)


def _refuse_unknown(name: str, made: set[str]) -> None:
    if name in made:
        message = f"the value {shown(name)} is used before it is there: a circle, or not sorted"
        raise UnsafeModelError(Gate.ORDER, message)
    raise UnsafeModelError(Gate.NAMES, f"nothing gives the value {shown(name)}")


def _check_by_onnx(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UnsafeModelError(Gate.CHECKER, first[:300]) from error
