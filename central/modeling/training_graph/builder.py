"""An ONNX graph under construction: nodes, constants, names, and what is known of each tensor.

Everything is standard operators of opset 18.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

from central.modeling.training_graph.facts import FLOATS, Array, Dimension, Shape, TensorFacts

__all__ = [
    "BATCH",
    "FLOATS",
    "IR_VERSION",
    "OPSET",
    "Array",
    "Attribute",
    "Dimension",
    "GraphBuilder",
    "Shape",
]

OPSET = 18
IR_VERSION = 8
BATCH = "batch"

Attribute = int | float | str | Sequence[int] | onnx.TensorProto


class GraphBuilder(TensorFacts):
    """Collects the nodes of a new graph that starts from what is known of a forward graph.

    The forward graph's nodes are not taken over: ``backward.emit_forward`` does that.

    Attributes:
        nodes: So far, in order of execution.
        needed: Names of tensors that a gradient must reach.
        saved: What a node's forward half kept for its gradient, by its first output.
        running: New values of running statistics, by the initializer's name.
        mask: Name of the vector of valid examples, shape ``(batch,)``; None if all are.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        super().__init__(graph)
        self.nodes: list[onnx.NodeProto] = []
        self.needed: set[str] = set()
        self.saved: dict[str, tuple[str, ...]] = {}
        self.running: dict[str, str] = {}
        self.mask: str | None = None
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._taken = _all_names(graph)
        self._count = 0

    # Nodes and names

    def emit(
        self,
        operator: str,
        *inputs: str | None,
        output: str | None = None,
        **attributes: Attribute | None,
    ) -> str:
        """Add a node with one output and return that output's name.

        Args:
            operator: Of the standard domain, at opset 18.
            inputs: None leaves an optional one out.
            output: Its name; a fresh one unless given.
            attributes: None leaves one out.
        """
        return self.emit_many(
            operator, *inputs, outputs=[output or self.fresh(operator)], **attributes
        )[0]

    def emit_many(
        self,
        operator: str,
        *inputs: str | None,
        outputs: int | Sequence[str],
        **attributes: Attribute | None,
    ) -> list[str]:
        """Add a node with several outputs, a number of fresh ones or these names; return them."""
        if isinstance(outputs, int):
            outputs = [self.fresh(operator) for _ in range(outputs)]
        names = [name or "" for name in inputs]
        while names and not names[-1]:
            names.pop()
        node = helper.make_node(operator, names, list(outputs))
        node.attribute.extend(
            helper.make_attribute(key, value)
            for key, value in attributes.items()
            if value is not None
        )
        self.nodes.append(node)
        return list(outputs)

    def fresh(self, base: str) -> str:
        """Return a name that nothing in the graph has."""
        while True:
            self._count += 1
            name = f"{base}.{self._count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    # Constants

    def constant(self, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Return the name of a constant; equal ones are stored once."""
        array = np.asarray(value, dtype)
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._constants:
            name = self.fresh("constant")
            self._store(name, array)
            self._constants[key] = name
        return self._constants[key]

    def integers(self, *values: int) -> str:
        """Return the name of a constant int64 vector."""
        return self.constant(values, np.int64)

    def scalar(self, value: float, like: str | None = None) -> str:
        """Return the name of a constant of shape ``()``, of float32 or the type of ``like``."""
        dtype = onnx.TensorProto.FLOAT if like is None else self.dtype(like)
        return self.constant(value, helper.tensor_dtype_to_np_dtype(dtype))

    def initializer(self, name: str, value: Array) -> str:
        """Add or replace an initializer under its own name; return the name."""
        self._taken.add(name)
        self._store(name, value)
        return name

    def release(self, name: str) -> Array:
        """Make an initializer something that the new graph gets from elsewhere; return its value.

        A node or a graph input must provide the name.
        """
        del self._initializers[name]
        return self.values.pop(name)

    def _store(self, name: str, array: Array) -> None:
        tensor = numpy_helper.from_array(array, name)
        self._initializers[name] = tensor
        self.values[name] = array
        self.describe(name, array.shape, tensor.data_type)

    # Shapes of gradients

    def shape_of(self, name: str) -> str:
        """Return the name of an int64 vector with the tensor's shape, constant if it can be."""
        shape = self.shapes.get(name)
        if shape is not None and all(isinstance(dim, int) for dim in shape):
            return self.constant(shape, np.int64)
        return self.emit("Shape", name)

    def reshape(self, tensor: str, like: str) -> str:
        """Give a tensor the shape of another one."""
        shape = self.shapes.get(like)
        if (
            shape is not None
            and 0 not in shape
            and sum(isinstance(dim, str) for dim in shape) == 1
        ):
            target = self.integers(*(dim if isinstance(dim, int) else -1 for dim in shape))
            return self.emit("Reshape", tensor, target)
        return self.emit("Reshape", tensor, self.shape_of(like))

    def zeros(self, like: str) -> str:
        """Return zeros of a tensor's shape and type."""
        value = helper.make_tensor("zero", self.dtype(like), [1], [0])
        return self.emit("ConstantOfShape", self.shape_of(like), value=value)

    def unbroadcast(self, gradient: str, output: str, operand: str) -> str:
        """Sum a gradient of ``output``'s shape to the shape of an operand broadcast to it."""
        return self.sum_to(gradient, self.shape(output), self.shape(operand))

    def sum_to(self, gradient: str, wide: Shape, narrow: Shape) -> str:
        """Sum a gradient of shape ``wide`` to ``narrow``, which broadcasts to it."""
        extra = len(wide) - len(narrow)
        stretched = [
            extra + axis for axis, dim in enumerate(narrow) if dim == 1 and wide[extra + axis] != 1
        ]
        if stretched:
            gradient = self.emit("ReduceSum", gradient, self.integers(*stretched), keepdims=1)
        if extra:
            gradient = self.emit("ReduceSum", gradient, self.integers(*range(extra)), keepdims=0)
        return gradient

    # The end

    def write_to(self, graph: onnx.GraphProto) -> None:
        """Replace a graph's nodes and initializers by what was built."""
        graph.ClearField("node")
        graph.node.extend(self.nodes)
        graph.ClearField("initializer")
        graph.initializer.extend(self._initializers.values())

    def finish(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """Return the model of everything that the outputs need, and of nothing else."""
        wanted = {info.name for info in outputs}
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        tensors = [tensor for key, tensor in self._initializers.items() if key in wanted]
        graph = helper.make_graph(kept[::-1], name, list(inputs), list(outputs), tensors)
        for number, node in enumerate(graph.node):
            node.name = str(number)  # onnxruntime 1.19 gives two fused nodes without one the same
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer}
    names.update(info.name for info in (*graph.input, *graph.output))
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
    return names
