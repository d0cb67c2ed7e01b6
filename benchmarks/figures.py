"""Figures of repeated measurements, and the aims that they are held against. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of some durations, in seconds.

    Attributes:
        median_s: Half of them took longer.
        low_s: The shortest.
        high_s: The longest.
        count: How many there are.
    """

    median_s: float
    low_s: float
    high_s: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """Return the spread of at least one duration.

        Raises:
            ValueError: There is none.
        """
        if not seconds:
            message = "nothing was measured"
            raise ValueError(message)
        return cls(median(seconds), min(seconds), max(seconds), len(seconds))

    def __str__(self) -> str:
        """Return ``median [low-high] ms``."""
        return f"{ms(self.median_s)} [{ms(self.low_s)}-{ms(self.high_s)}] ms"

    def as_object(self) -> dict[str, float | int]:
        """Return it for JSON, in milliseconds."""
        return {
            "median_ms": round(self.median_s * _MS, 3),
            "min_ms": round(self.low_s * _MS, 3),
            "max_ms": round(self.high_s * _MS, 3),
            "count": self.count,
        }


@dataclass(frozen=True, slots=True)
class Aim:
    """The longest that a no-op round may take with so many devices.

    Attributes:
        devices: Device processes.
        fixed_s: Allowed on any disk.
        durable_writes: How many durable writes of this disk come on top.
    """

    devices: int
    fixed_s: float
    durable_writes: int

    def limit_s(self, durable_write_s: float) -> float:
        """Return the limit on a disk where one durable write takes so long."""
        return self.fixed_s + self.durable_writes * durable_write_s

    def __str__(self) -> str:
        """Return the aim in words."""
        return f"{ms(self.fixed_s)} ms + {self.durable_writes} durable writes"


AIMS = {2: Aim(2, 0.030, 15), 10: Aim(10, 0.100, 40)}


def intervals(moments: Sequence[float]) -> list[float]:
    """Return the time between each two neighbours."""
    return [after - before for before, after in pairwise(moments)]


def ms(seconds: float) -> str:
    """Return a duration in milliseconds with three significant digits, as far as that goes."""
    value = seconds * _MS
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"
