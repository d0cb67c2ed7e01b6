"""What a program's memory did over many rounds: flat or not, and how steep. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

BARS = "▁▂▃▄▅▆▇█"
MIB = 1 << 20
#: Shares of the window whose medians are its start and its end: one sample is only luck.
_EDGE = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process.

    Attributes:
        committed: Rounds committed until then.
        rss_bytes: Resident memory.
        threads: Its threads.
        files: Its open file descriptors.
    """

    committed: int
    rss_bytes: int
    threads: int
    files: int


@dataclass(frozen=True, slots=True)
class Course:
    """The samples of one process, the oldest first.

    Attributes:
        name: The process.
        samples: All of them.
        warm_up: Rounds at the beginning that are not judged.
    """

    name: str
    samples: tuple[Sample, ...]
    warm_up: int

    @property
    def window(self) -> tuple[Sample, ...]:
        """The samples that are judged."""
        return tuple(one for one in self.samples if one.committed >= self.warm_up)

    @property
    def start_bytes(self) -> float:
        """Median at the window's start."""
        return median(one.rss_bytes for one in self.window[: self._edge])

    @property
    def end_bytes(self) -> float:
        """Median at the window's end."""
        return median(one.rss_bytes for one in self.window[-self._edge :])

    @property
    def max_bytes(self) -> int:
        """The largest in the window."""
        return max(one.rss_bytes for one in self.window)

    @property
    def min_bytes(self) -> int:
        """The smallest in the window."""
        return min(one.rss_bytes for one in self.window)

    @property
    def deviation(self) -> float:
        """Largest distance from the window's start, as a share of it, with its sign."""
        up, down = self.max_bytes - self.start_bytes, self.min_bytes - self.start_bytes
        return (up if up >= -down else down) / self.start_bytes

    @property
    def slope_bytes(self) -> float:
        """Growth in 100 rounds: the least-squares line through the window."""
        rounds = [float(one.committed) for one in self.window]
        sizes = [float(one.rss_bytes) for one in self.window]
        mean_round, mean_size = fmean(rounds), fmean(sizes)
        spread = sum((r - mean_round) ** 2 for r in rounds)
        if spread == 0:
            return 0.0
        together = sum(
            (r - mean_round) * (s - mean_size) for r, s in zip(rounds, sizes, strict=True)
        )
        return 100.0 * together / spread

    def is_flat(self, tolerance: float) -> bool:
        """Tell whether the window stays within ``tolerance`` (a share) of its start."""
        return abs(self.deviation) <= tolerance

    def leaks_handles(self) -> bool:
        """Tell whether threads or open files grew over the window."""
        # A few at least: one sample may meet a job that has its own connection open.
        edge = max(self._edge, min(5, len(self.window) // 2))
        first, last = self.window[:edge], self.window[-edge:]
        return any(
            min(getattr(one, name) for one in last) > max(getattr(one, name) for one in first)
            for name in ("threads", "files")
        )

    @property
    def _edge(self) -> int:
        return max(1, int(len(self.window) * _EDGE))


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Return the course of some values as bars, from the smallest to the largest of them."""
    if not values:
        return ""
    count = min(width, len(values))
    means = [
        fmean(values[len(values) * i // count : len(values) * (i + 1) // count])
        for i in range(count)
    ]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in means)
