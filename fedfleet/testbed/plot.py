"""One picture of a run: accuracy against rounds, and against bytes on the wire."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from schemas.tasks import RoundSummary

_MEGABYTE = 1e6
_SIZE_INCHES = (9.0, 3.6)
_DOTS_PER_INCH = 120


def series(rounds: Sequence[RoundSummary]) -> tuple[list[int], list[float], list[float]]:
    """Return round numbers, accuracies, and megabytes until then, of the measured rounds.

    Args:
        rounds: Ended rounds by number; the bytes of abandoned ones count as well.
    """
    traffic = accumulate(item.uplink_bytes + item.downlink_bytes for item in rounds)
    measured = [
        (item.round, item.metrics["accuracy"], total / _MEGABYTE)
        for item, total in zip(rounds, traffic, strict=True)
        if "accuracy" in item.metrics
    ]
    numbers, accuracies, megabytes = zip(*measured, strict=True) if measured else ((), (), ())
    return list(numbers), list(accuracies), list(megabytes)


def save_plot(rounds: Sequence[RoundSummary], title: str, path: Path) -> None:
    """Write the picture as PNG; without a display, and without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (slow to load)
    from matplotlib.figure import Figure  # noqa: PLC0415

    numbers, accuracies, megabytes = series(rounds)
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    left.plot(numbers, accuracies, marker="o")
    left.set(xlabel="round", ylabel="accuracy on held-out data")
    right.plot(megabytes, accuracies, marker="o", color="tab:green")
    right.set(xlabel="MB on the wire, up and down")
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, format="png")
