"""One picture of a run: accuracy against rounds, and against the bytes that devices sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from schemas.tasks import RoundSummary

_MEGABYTE = 1e6
_SIZE_INCHES = (9.0, 3.6)
_DOTS_PER_INCH = 120


@dataclass(frozen=True, slots=True)
class Point:
    """The model after one measured round, and what all rounds until then took.

    Attributes:
        round: Number of the round.
        accuracy: On held-out data.
        updates_mb: Encoded updates that devices sent, megabytes.
        sent_mb: All that they sent: whole MQTT packets.
    """

    round: int
    accuracy: float
    updates_mb: float
    sent_mb: float


def series(rounds: Sequence[RoundSummary]) -> list[Point]:
    """Return a point for each measured round.

    Args:
        rounds: Ended rounds by number; the bytes of abandoned ones count as well.
    """
    updates = accumulate(item.uplink_bytes / _MEGABYTE for item in rounds)
    sent = accumulate(item.uplink_wire_bytes / _MEGABYTE for item in rounds)
    return [
        Point(item.round, item.metrics["accuracy"], updates_mb, sent_mb)
        for item, updates_mb, sent_mb in zip(rounds, updates, sent, strict=True)
        if "accuracy" in item.metrics
    ]


def save_plot(rounds: Sequence[RoundSummary], title: str, path: Path) -> None:
    """Write the picture as PNG; without a display, and without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (slow to load)
    from matplotlib.figure import Figure  # noqa: PLC0415

    points = series(rounds)
    accuracies = [point.accuracy for point in points]
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    left.plot([point.round for point in points], accuracies, marker="o")
    left.set(xlabel="round", ylabel="accuracy on held-out data")
    sent, updates = [p.sent_mb for p in points], [p.updates_mb for p in points]
    right.plot(sent, accuracies, marker="o", color="tab:green", label="on the wire")
    right.plot(updates, accuracies, linestyle="--", color="tab:gray", label="encoded updates")
    right.set(xlabel="MB that devices sent")
    right.legend()
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, format="png")
