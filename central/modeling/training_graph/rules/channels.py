"""Sums and affine maps by channel: the parts of which normalizations and their gradients are made.

A tensor here has the shape ``(rows, channels, *spatial)``, the spatial sizes known and perhaps
none. Each function takes as few passes over such a tensor as standard operators allow.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from central.modeling.training_graph.builder import Array, GraphBuilder
from central.modeling.training_graph.terms import Term

#: From so many positions on, a product row by row is faster than Mul and ReduceSum.
_LONG_ROW = 512


@dataclass(frozen=True, slots=True)
class Channels:
    """The shape that a normalization's input, its output and their gradients share.

    Attributes:
        builder: Where nodes go.
        like: A tensor of that shape and of the element type.
    """

    builder: GraphBuilder
    like: str

    @property
    def count(self) -> int:
        """The number of channels."""
        return self.builder.static(self.like, [1])[0]

    @property
    def spatial(self) -> list[int]:
        """The spatial sizes."""
        return self.builder.static(self.like, range(2, self.builder.rank(self.like)))

    @property
    def length(self) -> int:
        """Positions per row and channel."""
        return math.prod(self.spatial)

    def term(self, name: str) -> Term:
        """Return the term of a tensor of the same element type."""
        return Term(self.builder, name, self.like)

    def constant(self, value: Array) -> str:
        """Return the name of a constant of the element type."""
        dtype = helper.tensor_dtype_to_np_dtype(self.builder.dtype(self.like))
        return self.builder.constant(value, dtype)

    def sums(self, values: str) -> str:
        """Sum over the positions; shape ``(rows, channels)``."""
        if not self.spatial:
            return values
        return self.builder.emit("ReduceSum", values, self._spatial_axes(), keepdims=0)

    def dots(self, left: str, right: str) -> str:
        """Sum the products over the positions; shape ``(rows, channels)``."""
        if self.length < _LONG_ROW:
            return self.sums(self.builder.emit("Mul", left, right))
        rows = self.builder.integers(-1, 1, self.length)
        columns = self.builder.emit("Reshape", right, rows)
        product = self.builder.emit(
            "MatMul",
            self.builder.emit("Reshape", left, rows),
            self.builder.emit("Transpose", columns, perm=(0, 2, 1)),
        )
        return self.builder.emit("Reshape", product, self.builder.integers(-1, self.count))

    def beside(self, by_channel: str) -> str:
        """Give a vector by channel the shape ``(1, channels, 1, ...)``."""
        ones = [1] * len(self.spatial)
        return self.builder.emit("Reshape", by_channel, self.builder.integers(1, -1, *ones))

    def beside_rows(self, by_row: str) -> str:
        """Give values by row and channel the shape ``(rows, channels, 1, ...)``."""
        if not self.spatial:
            return by_row
        ones = [1] * len(self.spatial)
        return self.builder.emit("Reshape", by_row, self.builder.integers(-1, self.count, *ones))

    def affine(self, values: str, slope: str, offset: str) -> str:
        """Return ``values * slope + offset``, both by channel, in one pass."""
        zeros = self.constant(np.zeros(self.count))
        ones = self.constant(np.ones(self.count))
        return self.builder.emit(
            "BatchNormalization", values, slope, offset, zeros, ones, epsilon=0.0
        )

    def affine_rows(self, values: str, slope: str, offset: str, output: str | None = None) -> str:
        """Return ``values * slope + offset``, both by row and channel, in one pass."""
        flat = self.builder.integers(-1)
        slopes = self.builder.emit("Reshape", slope, flat)
        image = self.builder.integers(1, -1, *(self.spatial or [1]))
        result = self.builder.emit(
            "BatchNormalization",
            self.builder.emit("Reshape", values, image),
            slopes,
            self.builder.emit("Reshape", offset, flat),
            self._filled(slopes, 0),
            self._filled(slopes, 1),
            epsilon=0.0,
        )
        shape = self.builder.integers(-1, self.count, *self.spatial)
        return self.builder.emit("Reshape", result, shape, output=output)

    def _filled(self, like: str, value: float) -> str:
        fill = helper.make_tensor("fill", self.builder.dtype(self.like), [1], [value])
        shape = self.builder.emit("Shape", like)
        return self.builder.emit("ConstantOfShape", shape, value=fill)

    def _spatial_axes(self) -> str:
        return self.builder.integers(*range(2, 2 + len(self.spatial)))


def epsilon_of(node: onnx.NodeProto) -> float:
    """Return what a normalization adds to the variance."""
    return next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
