"""The memory of each process over the rounds, as one picture."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.soak_figures import MIB, Course

_SIZE_INCHES = (9.0, 4.0)
_DOTS_PER_INCH = 120


def save(courses: Sequence[Course], path: Path) -> None:
    """Write the picture as PNG; without a display, and without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to load

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for course in courses:
        rounds = [one.committed for one in course.samples]
        sizes = [one.rss_bytes / MIB for one in course.samples]
        axes.plot(rounds, sizes, label=course.name)
    axes.set(xlabel="rounds committed", ylabel="resident memory, MiB")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png")
