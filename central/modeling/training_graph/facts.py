"""What is known of the tensors of a graph: shapes, element types, constant values.

A dimension is a number, or a text that stands for one that follows the batch (``batch``,
``4*batch``); equal texts are equal sizes.
"""

from collections.abc import Iterable
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from central.modeling.training_graph.errors import UnsupportedModelError

Dimension = int | str
Shape = tuple[Dimension, ...]
Array = NDArray[Any]

FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})


class TensorFacts:
    """What a graph tells of its tensors, and what was noted since.

    Attributes:
        shapes: By name.
        dtypes: ``onnx.TensorProto`` element types.
        values: Of constant tensors; no trainable is among them.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self.values: dict[str, Array] = {}
        for info in (*graph.value_info, *graph.input, *graph.output):
            tensor = info.type.tensor_type
            self.dtypes[info.name] = tensor.elem_type
            dims = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim
            )
            if tensor.HasField("shape") and "" not in dims:
                self.shapes[info.name] = dims
        for initializer in graph.initializer:
            self.describe(initializer.name, tuple(initializer.dims), initializer.data_type)
            self.values[initializer.name] = numpy_helper.to_array(initializer)

    def describe(self, name: str, shape: Shape, dtype: int) -> str:
        """Note a tensor's shape and element type; return its name."""
        self.shapes[name] = shape
        self.dtypes[name] = dtype
        return name

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
