"""An ONNX graph under construction: nodes, constants, names, and what is known of each tensor.

Everything is standard operators of opset 18. A dimension is a number, or a text that stands for
one that follows the batch (``batch``, ``4*batch``); equal texts are equal sizes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import helper, numpy_helper

from central.modeling.training_graph.errors import UnsupportedModelError

OPSET = 18
IR_VERSION = 8
BATCH = "batch"

Dimension = int | str
Shape = tuple[Dimension, ...]
Array = NDArray[Any]
Attribute = int | float | str | Sequence[int] | onnx.TensorProto

FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16},
)


class GraphBuilder:
    """Collects the nodes of a new graph that starts from what is known of a forward graph.

    The forward graph's nodes are not taken over: ``backward.emit_forward`` does that.

    Attributes:
        nodes: So far, in order of execution.
        shapes: Of the forward graph's tensors and of whatever was described since.
        dtypes: ``onnx.TensorProto`` element types of the same.
        values: Constant tensors whose values a rule may read; no trainable is among them.
        needed: Names of tensors that a gradient must reach.
        saved: What a node's forward half kept for its gradient, by its first output.
        running: New values of running statistics, by the initializer's name.
        mask: Name of the vector of valid examples, shape ``(batch,)``; None if all are.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self.values: dict[str, Array] = {}
        self.needed: set[str] = set()
        self.saved: dict[str, tuple[str, ...]] = {}
        self.running: dict[str, str] = {}
        self.mask: str | None = None
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._taken = _all_names(graph)
        self._count = 0
        self._read(graph)

    def _read(self, graph: onnx.GraphProto) -> None:
        for info in (*graph.value_info, *graph.input, *graph.output):
            tensor = info.type.tensor_type
            self.dtypes[info.name] = tensor.elem_type
            dims = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim
            )
            if tensor.HasField("shape") and "" not in dims:
                self.shapes[info.name] = dims
        for name, tensor in self._initializers.items():
            self.describe(name, tuple(tensor.dims), tensor.data_type)
            self.values[name] = numpy_helper.to_array(tensor)

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

    def describe(self, name: str, shape: Shape, dtype: int) -> str:
        """Note a tensor's shape and element type; return its name."""
        self.shapes[name] = shape
        self.dtypes[name] = dtype
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

    # What is known

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape.

        Raises:
            UnsupportedModelError: It is not known.
        """
        if name not in self.shapes:
            reason = f"the shape of {name!r} is not known"
            raise UnsupportedModelError(reason)
        return self.shapes[name]

    def static(self, name: str, axes: Iterable[int] | None = None) -> list[int]:
        """Return dimensions (all unless ``axes`` says which) that must not follow the batch.

        Raises:
            UnsupportedModelError: One does, or the shape is not known.
        """
        shape = self.shape(name)
        dims = [shape[axis] for axis in (range(len(shape)) if axes is None else axes)]
        fixed = [dim for dim in dims if isinstance(dim, int)]
        if len(fixed) < len(dims):
            reason = f"{name!r} has the shape {shape}, of which {dims} must be numbers"
            raise UnsupportedModelError(reason)
        return fixed

    def rank(self, name: str) -> int:
        """Return the number of a tensor's dimensions."""
        return len(self.shape(name))

    def dtype(self, name: str) -> int:
        """Return a tensor's element type.

        Raises:
            UnsupportedModelError: It is not known.
        """
        if name not in self.dtypes:
            reason = f"the element type of {name!r} is not known"
            raise UnsupportedModelError(reason)
        return self.dtypes[name]

    def value(self, name: str, what: str) -> Array:
        """Return the value of a constant; ``what`` names it in the refusal.

        Raises:
            UnsupportedModelError: The tensor is not constant.
        """
        if name not in self.values:
            reason = f"{what} must be constant, {name!r} is computed"
            raise UnsupportedModelError(reason)
        return self.values[name]

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
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer}
    names.update(info.name for info in (*graph.input, *graph.output))
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
    return names
