"""The gradient of a convolution's kernel, in the exact form that is fastest for its shape.

All forms sum the same products: the narrow tensor times the window positions of the wide one.
Which is fastest was measured on onnxruntime's CPU provider, one thread, batch 32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import helper

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.rules.sliding import Windows

#: With more positions in a window than this, some nodes for each would be too many.
_MOST_POSITIONS = 49

#: With fewer channels, products of stacked slices beat a product per position.
_FEW_CHANNELS = 16

#: Up to this width per kernel column, products of whole rows beat a product per position.
_MOST_COLUMNS = 32


@dataclass(frozen=True, slots=True)
class KernelGradient:
    """What the gradient of one kernel is made of.

    Attributes:
        builder: Where nodes go.
        wide: What the windows lie on, shape ``(batch, groups * c, *wide)``.
        narrow: One value per window, shape ``(batch, n, *narrow)``.
        weight: The kernel, shape ``(n, c, *kernel)``.
        shape: The windows.
        groups: Number of channel groups.
    """

    builder: GraphBuilder
    wide: str
    narrow: str
    weight: str
    shape: Windows
    groups: int

    def emit(self) -> str:
        """Emit the gradient in the form that fits, and return its name."""
        channels = self._channels[1]
        positions = math.prod(self.shape.kernel)
        widest = _MOST_COLUMNS * self.shape.kernel[-1]
        if self.groups == 1 and self.shape.covers and channels <= math.prod(self.shape.wide):
            return self._per_example()
        if self.groups > 1 and channels == 1 and self.shape.wide[-1] <= widest:
            return self._by_rows()
        if positions > _MOST_POSITIONS:
            return self._swapped()
        if self.groups == 1 and channels < _FEW_CHANNELS and positions > 1:
            return self._stacked()
        return self._per_position()

    @property
    def _channels(self) -> tuple[int, int]:
        """``n`` and ``c``."""
        n, c = self.builder.static(self.weight, [0, 1])
        return n, c

    def _per_example(self) -> str:
        """Each window is one position: a product per example, then their sum."""
        n, c = self._channels
        length = math.prod(self.shape.wide)
        left = self._reshaped(self.narrow, -1, n, length)
        right = self._transposed(self._reshaped(self.wide, -1, c, length), 0, 2, 1)
        products = self.builder.emit("MatMul", left, right)
        total = self.builder.emit("ReduceSum", products, self.builder.integers(0), keepdims=0)
        return self._finished(total)

    def _by_rows(self) -> str:
        """Depthwise: multiply whole last axes; the kernel's columns are sums of diagonals."""
        group = self._channels[0] // self.groups
        width, count = self.shape.wide[-1], self.shape.narrow[-1]
        right = self._reshaped(self._channels_first(self.narrow), self.groups, group, -1, count)
        source = self._channels_first(
            self._padded((*self.shape.before[:-1], 0), (*self.shape.needed_after[:-1], 0))
        )
        products = []
        for row in dict.fromkeys(position[:-1] for position in self.shape.positions()):
            rows = self._reshaped(self._slice(source, row), self.groups, 1, -1, width)
            product = self.builder.emit("MatMul", self._transposed(rows, 0, 1, 3, 2), right)
            products.append(self._reshaped(product, self.groups, group, 1, width * count))
        return self._finished(self._diagonals(self._joined(products, 2)))

    def _diagonals(self, products: str) -> str:
        """Sum products of rows over the pairs that meet in each kernel column."""
        shape = self.shape
        columns = np.arange(shape.kernel[-1])[:, None] * shape.dilations[-1] - shape.before[-1]
        windows = np.arange(shape.narrow[-1])
        place = windows * shape.strides[-1] + columns
        inside = (place >= 0) & (place < shape.wide[-1])
        index = np.where(inside, place, 0) * shape.narrow[-1] + windows
        pairs = self.builder.emit("Gather", products, self.builder.constant(index), axis=3)
        if not inside.all():
            pairs = self.builder.emit("Mul", pairs, self._constant(inside))
        return self.builder.emit("ReduceSum", pairs, self.builder.integers(-1), keepdims=0)

    def _swapped(self) -> str:
        """Convolve with batch and channels, strides and dilations changing places."""
        channels = self._channels[1]
        source, before, after = fitted(self.builder, self.wide, self.shape)
        if self.groups == 1:
            source = self._channels_first(source)
        else:
            pairs = zip(self.shape.wide, self.shape.needed_after, strict=True)
            sizes = [size + min(pad, 0) for size, pad in pairs]
            split = self._reshaped(source, -1, self.groups, channels, *sizes)
            rest = (axis + 1 for axis in self.shape.axes)
            source = self._reshaped(self._transposed(split, 2, 1, 0, *rest), channels, -1, *sizes)
        gradient = self.builder.emit(
            "Conv",
            source,
            self._channels_first(self.narrow),
            group=self.groups,
            kernel_shape=self.shape.narrow,
            strides=self.shape.dilations,
            dilations=self.shape.strides,
            pads=(*before, *after),
        )
        return self._channels_first(gradient)

    def _stacked(self) -> str:
        """Stack the slices of a kernel row: one product for each row."""
        n, c = self._channels
        columns = self.shape.kernel[-1]
        source = self._channels_first(self._padded(self.shape.before, self.shape.needed_after))
        last = len(self.shape.kernel) - 1
        stacked = self._joined([self._slice(source, (at,), last) for at in range(columns)], 0)
        narrow = self._reshaped(self._channels_first(self.narrow), n, -1)
        products = []
        for row in dict.fromkeys(position[:-1] for position in self.shape.positions()):
            part = self._reshaped(self._slice(stacked, row), columns * c, -1)
            products.append(self.builder.emit("Gemm", narrow, part, transB=1))
        joined = self._reshaped(self._joined(products, 1), n, -1, c)
        return self._finished(self._transposed(joined, 0, 2, 1))

    def _per_position(self) -> str:
        """Multiply with a shifted slice for each position of the kernel."""
        n, c = self._channels
        source = self._channels_first(self._padded(self.shape.before, self.shape.needed_after))
        narrow = self._channels_first(self.narrow)
        products = []
        for position in self.shape.positions():
            part = source if self.shape.covers else self._slice(source, position)
            product = self._grouped_product(narrow, part, n, c)
            products.append(self._reshaped(product, n, c, 1))
        return self._finished(self._joined(products, 2))

    def _grouped_product(self, narrow: str, part: str, n: int, c: int) -> str:
        if self.groups == 1:
            rows, columns = self._reshaped(narrow, n, -1), self._reshaped(part, c, -1)
            return self.builder.emit("Gemm", rows, columns, transB=1)
        rows = self._reshaped(narrow, self.groups, n // self.groups, -1)
        columns = self._transposed(self._reshaped(part, self.groups, c, -1), 0, 2, 1)
        return self.builder.emit("MatMul", rows, columns)

    # Parts

    def _constant(self, value: np.ndarray) -> str:
        dtype = helper.tensor_dtype_to_np_dtype(self.builder.dtype(self.weight))
        return self.builder.constant(value, dtype)

    def _finished(self, gradient: str) -> str:
        return self.builder.reshape(gradient, self.weight)

    def _reshaped(self, name: str, *sizes: int) -> str:
        return self.builder.emit("Reshape", name, self.builder.integers(*sizes))

    def _transposed(self, name: str, *axes: int) -> str:
        return self.builder.emit("Transpose", name, perm=axes)

    def _channels_first(self, name: str) -> str:
        """Swap batch and channels."""
        return self._transposed(name, 1, 0, *self.shape.axes)

    def _padded(self, before: Sequence[int], after: Sequence[int]) -> str:
        return padded(self.builder, self.wide, before, after)

    def _joined(self, names: list[str], axis: int) -> str:
        return names[0] if len(names) == 1 else self.builder.emit("Concat", *names, axis=axis)

    def _slice(self, name: str, position: tuple[int, ...], first: int = 0) -> str:
        """Return what lies at a position of every window along some spatial axes.

        Args:
            name: A tensor that ends where the last window ends, or behind that.
            position: In the window, along the axes from ``first`` on.
            first: The first of these axes.
        """
        if not position:
            return name
        used = range(first, first + len(position))
        shape = self.shape
        starts = [at * shape.dilations[axis] for at, axis in zip(position, used, strict=True)]
        steps = [shape.strides[axis] for axis in used]
        ends = [
            start + (shape.narrow[axis] - 1) * shape.strides[axis] + 1
            for start, axis in zip(starts, used, strict=True)
        ]
        parts = (starts, ends, [axis + 2 for axis in used], steps)
        return self.builder.emit("Slice", name, *(self.builder.integers(*part) for part in parts))


def padded(builder: GraphBuilder, name: str, before: Sequence[int], after: Sequence[int]) -> str:
    """Pad the spatial axes with zeros; ignore negative padding."""
    pads = [max(pad, 0) for pad in (*before, *after)]
    if not any(pads):
        return name
    half = len(pads) // 2
    pads = [0, 0, *pads[:half], 0, 0, *pads[half:]]
    return builder.emit("Pad", name, builder.integers(*pads))


def cropped(builder: GraphBuilder, name: str, starts: Sequence[int], sizes: Sequence[int]) -> str:
    """Cut a block out of the spatial axes."""
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    axes = range(2, 2 + len(ends))
    return builder.emit(
        "Slice", name, builder.integers(*starts), builder.integers(*ends), builder.integers(*axes)
    )


def fitted(
    builder: GraphBuilder, wide: str, shape: Windows
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """Return the wide tensor and the padding with which it ends where the last window ends.

    Where the windows do not reach its end, the tensor is cropped.
    """
    if all(pad >= 0 for pad in shape.needed_after):
        return wide, shape.before, shape.needed_after
    reached = [
        size + min(pad, 0) for size, pad in zip(shape.wide, shape.needed_after, strict=True)
    ]
    return (
        cropped(builder, wide, [0] * len(reached), reached),
        shape.before,
        tuple(max(pad, 0) for pad in shape.needed_after),
    )
