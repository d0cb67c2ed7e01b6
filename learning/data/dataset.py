"""Labelled examples that a device trains on, or that central evaluates on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from schemas.base import explain
from schemas.messages import DataDescription

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


class DataError(ValueError):
    """A data source cannot be read, or what it holds is not a dataset."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled examples; checked when made, not to be written to afterwards.

    Attributes:
        x: Features, float32, shape ``(n, *shape)``, all finite.
        y: Labels, int64, shape ``(n,)``, from 0 to ``classes - 1``.
        classes: Number of classes of the problem; a device may lack some of them.
        name: Name of the source; devices that train one model share it.
    """

    x: F32
    y: I64
    classes: int
    name: str

    def __post_init__(self) -> None:
        """Check dtypes, shapes, ranges and the name.

        Raises:
            DataError: The text names the field, its value and the limit.
        """
        _check_types(self.x, self.y)
        try:
            self.description()
        except ValidationError as error:
            raise DataError(explain(error)) from error
        _check_values(self.x, self.y, self.classes)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.y)

    def description(self) -> DataDescription:
        """Return what may be told of these examples: no value of theirs."""
        return DataDescription(
            name=self.name, shape=self.x.shape[1:], classes=self.classes, examples=len(self.y)
        )

    def subset(self, indices: I64) -> "Dataset":
        """Return the examples at ``indices``, shape ``(k,)``, copied in that order."""
        return Dataset(self.x[indices], self.y[indices], self.classes, self.name)

    def standardized(self) -> "Dataset":
        """Return a copy whose channels (axis 1 of ``x``) have mean 0 and deviation 1.

        The statistics are those of these examples alone, so none of them leaves the device.
        A channel that never changes becomes 0.
        """
        axes = (0, *range(2, self.x.ndim))
        mean = self.x.mean(axis=axes, keepdims=True, dtype=np.float64)
        deviation = self.x.std(axis=axes, keepdims=True, dtype=np.float64)
        scale = np.where(deviation > 0, deviation, 1.0)
        scaled = self.x - mean.astype(np.float32)
        scaled /= scale.astype(np.float32)
        return Dataset(scaled, self.y, self.classes, self.name)


def concatenate(parts: list[Dataset]) -> Dataset:
    """Return the examples of all ``parts``, one after another.

    Raises:
        DataError: There is no part, or two differ in name, shape or classes.
    """
    if not parts:
        message = "no dataset to concatenate"
        raise DataError(message)
    first = parts[0].description().key
    for part in parts[1:]:
        if part.description().key != first:
            message = f"datasets differ: {first} and {part.description().key}"
            raise DataError(message)
    return Dataset(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        parts[0].classes,
        parts[0].name,
    )


def _check_types(x: F32, y: I64) -> None:
    if x.dtype != np.float32 or x.ndim < 2:  # noqa: PLR2004
        message = f"x: {x.dtype} of shape {x.shape}, it must be float32 (examples, ...)"
        raise DataError(message)
    if y.dtype != np.int64 or y.shape != x.shape[:1]:
        message = f"y: {y.dtype} of shape {y.shape}, it must be int64 of shape {x.shape[:1]}"
        raise DataError(message)


def _check_values(x: F32, y: I64, classes: int) -> None:
    if not len(y):
        return
    # The extremes carry every NaN and infinity, without an array of booleans as large as x.
    if not (np.isfinite(x.min()) and np.isfinite(x.max())):
        message = "x: holds a value that is not finite"
        raise DataError(message)
    if y.min() < 0 or y.max() >= classes:
        message = f"y: labels from {y.min()} to {y.max()}, at most 0 to {classes - 1} are allowed"
        raise DataError(message)
