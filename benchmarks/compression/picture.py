"""Draws accuracy against bytes."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.compression.results import Run

_DPI, _WIDTH_IN, _HEIGHT_IN = 80, 10.0, 5.0


def draw(runs: Sequence[Run], file: Path, least: float = 90.0) -> None:
    """Draw the best accuracy so far of each run against its bytes up, and write the picture.

    Args:
        runs: One line each, in this order; one title once, what diverged not at all.
        file: Its ending says the format.
        least: Where the axis of accuracy begins, in percent.
    """
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "fedfleet"  # the same runs give the same bytes
    from matplotlib import pyplot as plt  # noqa: PLC0415

    chosen = list({run.title: run for run in runs if not run.diverged}.values())
    figure, axes = plt.subplots(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    colors = plt.get_cmap("tab20")
    for at, run in enumerate(chosen):
        best = [max(run.accuracy[: index + 1]) for index in range(len(run.accuracy))]
        axes.plot(
            run.up_bytes, best, label=run.title, color=colors(at % 20),
            linestyle="-" if at < 20 else "--", linewidth=1.2,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="bytes up, all devices", ylabel="best accuracy so far, %")
    axes.set_ylim(least, 99)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=7, loc="outside right upper")
    figure.savefig(file, dpi=_DPI, metadata={"Date": None})
    plt.close(figure)
