"""Weighted sums of updates, in float64."""

import math
from dataclasses import dataclass

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, F64
from updates.codecs.base import Codec
from updates.layout import Layout


@dataclass(frozen=True, slots=True, eq=False)
class PartialSum:
    """The sum over some clients of weight times update, and the sum of the weights.

    Law: ``+`` commutes bit for bit, ``zero(n)`` is its identity, and it associates up to the
    rounding of float64; ``(a + b).mean()`` is the weighted mean over the clients of both. A sum
    whose bits must not depend on timing adds its clients in an order of their own.

    Attributes:
        total: Shape ``(n,)``.
        weight: As a rule the number of examples; finite and at least 0.

    Raises:
        ValueError: ``total`` is not a vector, or ``weight`` is out of range.
    """

    total: F64
    weight: float

    def __post_init__(self) -> None:
        """Check the limits."""
        _check_weight(self.weight)
        if self.total.ndim != 1:
            message = f"total: shape {self.total.shape}, it must be a vector"
            raise ValueError(message)

    @classmethod
    def zero(cls, size: int) -> "PartialSum":
        """Return the sum over no client, shape ``(size,)``."""
        return cls(np.zeros(size, dtype=np.float64), 0.0)

    def __add__(self, other: "PartialSum") -> "PartialSum":
        """Return the sum over the clients of both.

        Raises:
            ValueError: The shapes differ.
        """
        if self.total.shape != other.total.shape:
            message = f"total: shapes {self.total.shape} and {other.total.shape} differ"
            raise ValueError(message)
        return PartialSum(self.total + other.total, self.weight + other.weight)

    def mean(self) -> F32:
        """Return the weighted mean update, float32 of shape ``(n,)``.

        Raises:
            ValueError: The weights sum to 0.
        """
        return _mean(self.total, self.weight)


class Accumulator:
    """A partial sum that grows in place: one vector, whatever the number of clients."""

    def __init__(self, size: int) -> None:
        self._total: F64 = np.zeros(size, dtype=np.float64)
        self._weight = 0.0

    @property
    def weight(self) -> float:
        """Sum of the weights so far."""
        return self._weight

    def add(self, payload: Buffer, layout: Layout, codec: Codec, weight: float) -> None:
        """Add one encoded update; nothing has changed if it is refused.

        Args:
            payload: One client's update.
            layout: Names and shapes behind it, of this accumulator's size.
            codec: What it was encoded with.
            weight: As a rule the client's number of examples; finite and at least 0.

        Raises:
            PayloadError: The payload is not one that the codec writes for the layout.
            ValueError: The weight is out of range, or the size differs.
        """
        _check_weight(weight)
        codec.add_into(self._total, payload, layout, weight)
        self._weight += weight

    def partial_sum(self) -> PartialSum:
        """Return what was added so far, as a copy."""
        return PartialSum(self._total.copy(), self._weight)

    def mean(self) -> F32:
        """Return the weighted mean update, float32 of shape ``(n,)``.

        Raises:
            ValueError: The weights sum to 0.
        """
        return _mean(self._total, self._weight)


def _mean(total: F64, weight: float) -> F32:
    if weight <= 0:
        message = f"weight: {weight}, a mean needs more than 0"
        raise ValueError(message)
    mean = np.empty(total.shape, dtype=np.float32)
    np.divide(total, weight, out=mean, casting="same_kind")
    return mean


def _check_weight(weight: float) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        message = f"weight: {weight}, it must be finite and at least 0"
        raise ValueError(message)
