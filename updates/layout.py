"""Names and shapes of a model's parameters <-> one flat float32 vector.

The canonical order is by name (code points), tensors follow each other without gaps, each in C
order. Two programs that hold the same layout digest agree on what every position means.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from operator import attrgetter, index

import numpy as np
from numpy.typing import NDArray

from schemas.errors import PayloadError
from schemas.limits import MAX_OBJECT_BYTES
from updates.arrays import F32

MAX_NAME_CHARACTERS = 256
MAX_TENSORS = 10_000
MAX_DIMENSIONS = 32
#: Values in a model: as float32 it must still be an object that travels.
MAX_VALUES = MAX_OBJECT_BYTES // 4

#: The one name that model files keep for themselves.
RESERVED_NAME = "__metadata__"
_SHOWN_CHARACTERS = 40
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class TensorSpec:
    """One parameter tensor.

    Attributes:
        name: Printable, 1 to 256 characters.
        shape: Dimensions of at least 1; ``()`` is one value.

    Raises:
        PayloadError: The name or the shape breaks a limit.
    """

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the limits."""
        _check_name(self.name)
        _check_shape(self.name, self.shape)

    @cached_property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The tensors of one model in canonical order; build it with ``Layout.of``.

    Attributes:
        tensors: Sorted by name, each name once.

    Raises:
        PayloadError: No tensor, too many, too many values, or not in canonical order.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        """Check the limits."""
        _check_count("layout: tensors", len(self.tensors), MAX_TENSORS)
        for before, after in pairwise(self.tensors):
            if before.name >= after.name:
                message = f"layout: {before.name!r} before {after.name!r} is not sorted by name"
                raise PayloadError(message)
        _check_count("layout: values", self.size, MAX_VALUES)

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> "Layout":
        """Return the layout of named shapes, whatever their order.

        Raises:
            PayloadError: A name, a shape or a total breaks a limit.
        """
        specs = (TensorSpec(name, tuple(map(index, shape))) for name, shape in shapes.items())
        return cls(tuple(sorted(specs, key=attrgetter("name"))))

    @cached_property
    def size(self) -> int:
        """Number of float32 values in the flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each tensor's first value, in canonical order."""
        return tuple(accumulate((tensor.size for tensor in self.tensors[:-1]), initial=0))

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the compact ASCII JSON ``[[name, [dimension, ...]], ...]``."""
        pairs = [[tensor.name, list(tensor.shape)] for tensor in self.tensors]
        canonical = json.dumps(pairs, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()

    def slices(self) -> dict[str, slice]:
        """Return where each tensor lies in the flat vector, in canonical order."""
        return {
            tensor.name: slice(offset, offset + tensor.size)
            for tensor, offset in zip(self.tensors, self.offsets, strict=True)
        }

    def flatten(self, arrays: Mapping[str, NDArray[np.floating]]) -> F32:
        """Return the arrays as one new vector, shape ``(size,)``.

        Args:
            arrays: Exactly the tensors of this layout; other float types are cast to float32.

        Raises:
            PayloadError: A name is missing or not known, or a shape differs.
        """
        self._check_names(arrays)
        vector = np.empty(self.size, dtype=np.float32)
        views = self.unflatten(vector)
        for name, view in views.items():
            array = np.asarray(arrays[name])
            _check_array(name, array, view.shape)
            np.copyto(view, array, casting="same_kind")
        return vector

    def unflatten(self, vector: F32) -> dict[str, F32]:
        """Return each tensor as a view of the vector; nothing is copied.

        Raises:
            PayloadError: The vector has not the shape ``(size,)``.
        """
        self.check_vector(vector)
        slices = self.slices()
        return {
            tensor.name: vector[slices[tensor.name]].reshape(tensor.shape)
            for tensor in self.tensors
        }

    def check_vector(self, vector: F32) -> None:
        """Refuse anything but a float32 vector of this layout's size.

        Raises:
            PayloadError: Type or shape differ; the text names both.
        """
        if vector.dtype != np.float32 or vector.shape != (self.size,):
            message = (
                f"vector: {vector.dtype} of shape {vector.shape}, "
                f"the layout has float32 of shape {(self.size,)}"
            )
            raise PayloadError(message)

    def _check_names(self, arrays: Mapping[str, object]) -> None:
        known = {tensor.name for tensor in self.tensors}
        for problem, names in (
            ("missing", known - arrays.keys()),
            ("extra", arrays.keys() - known),
        ):
            if names:
                shown = ", ".join(repr(name) for name in sorted(names)[:_SHOWN_NAMES])
                message = f"tensors: {len(names)} {problem}: {shown}"
                raise PayloadError(message)


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        message = (
            f"tensor name {name[:_SHOWN_CHARACTERS]!r}: {len(name)} characters, "
            f"1 to {MAX_NAME_CHARACTERS} are allowed"
        )
        raise PayloadError(message)
    if not name.isprintable() or name == RESERVED_NAME:
        message = f"tensor name {name[:_SHOWN_CHARACTERS]!r}: not printable, or reserved"
        raise PayloadError(message)


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) > MAX_DIMENSIONS:
        message = f"tensor {name!r}: {len(shape)} dimensions, at most {MAX_DIMENSIONS} are allowed"
        raise PayloadError(message)
    for dimension in shape:
        _check_count(f"tensor {name!r}: dimension", dimension, MAX_VALUES)


def _check_array(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype.kind != "f":
        message = f"tensor {name!r}: dtype {array.dtype}, a float type is needed"
        raise PayloadError(message)
    if array.shape != shape:
        message = f"tensor {name!r}: shape {array.shape}, the layout has {shape}"
        raise PayloadError(message)


def _check_count(what: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        message = f"{what}: {count}, 1 to {limit} are allowed"
        raise PayloadError(message)
