"""Accuracy against bytes of every codec on MNIST: ``python -m benchmarks.compression.fedavg``.

Runs take a minute or two each and are kept in ``--out``; what is there is not played again.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click

from benchmarks.compression.picture import draw
from benchmarks.compression.player import Player
from benchmarks.compression.results import Run
from benchmarks.compression.settings import BASELINE, Coding, Setting
from benchmarks.compression.tried import ONCE, THRICE, every_codec
from benchmarks.training.fedavg import mnist_folder
from benchmarks.training.pages import markdown_table, put_section
from fedfleet.tables import size, table

PAGE, PICTURE = Path("docs", "compression.md"), Path("docs", "compression-fedavg.svg")
SEEDS = (1, 2, 3)
#: In percentage points below the baseline's final accuracy.
SLACK = 0.5
_ONE_COLUMNS = ("setting", "rounds", "final %", "bytes up", "of raw", "fewer bytes up to target")
_MANY_COLUMNS = (
    "setting", "rounds", "final %", "bytes up", "of raw", "fewer up, of each seed", "median",
    "fewer up and down, median",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beside:
    """One run beside the baseline of its seed.

    Attributes:
        run: It.
        of_raw: The baseline's bytes of an update by this one's.
        up: By what factor fewer bytes up led to the target; None: it was not reached.
        both: The same of up and down together.
    """

    run: Run
    of_raw: float
    up: float | None
    both: float | None

    @classmethod
    def of(cls, run: Run, baseline: Run) -> "Beside":
        """Compare a run with the baseline of the same seed."""
        target = baseline.final - SLACK
        each = run.up_bytes[-1] / run.rounds[-1]
        return cls(
            run,
            baseline.up_bytes[-1] / baseline.rounds[-1] / each,
            run.fewer_bytes(baseline, target, both_ways=False),
            run.fewer_bytes(baseline, target, both_ways=True),
        )


def factor(value: float | None) -> str:
    """Return a factor as text, or that the target was not reached."""
    if value is None:
        return "not reached"
    return f"{value:.1f}x" if value < 10 else f"{value:.0f}x"


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median, or None; what was not reached counts as less than any factor."""
    found = median(-1.0 if value is None else value for value in values)
    return None if found < 0 else found


def one_row(beside: Beside) -> tuple[str, ...]:
    """Return a row of the table of one seed."""
    run = beside.run
    return (
        run.title, f"{run.rounds[-1]}", "diverged" if run.diverged else f"{run.final:.2f}",
        size(run.up_bytes[-1]),
        "-" if run.diverged else factor(beside.of_raw), factor(beside.up),
    )  # fmt: skip


def many_row(besides: Sequence[Beside]) -> tuple[str, ...]:
    """Return a row of the table of several seeds."""
    runs = [beside.run for beside in besides]
    return (
        runs[0].title,
        f"{runs[0].rounds[-1]}",
        " / ".join(f"{run.final:.2f}" for run in runs),
        size(median(run.up_bytes[-1] for run in runs)),
        factor(median(beside.of_raw for beside in besides)),
        " / ".join(factor(beside.up) for beside in besides),
        factor(middle([beside.up for beside in besides])),
        factor(middle([beside.both for beside in besides])),
    )


def measured(
    player: Player, settings: Sequence[Setting], seeds: Sequence[int], *, play: bool
) -> list[list[Beside]]:
    """Return each setting's runs beside the baselines, one a seed.

    Args:
        player: Plays a run, or knows it.
        settings: One list each, in this order.
        seeds: One run each.
        play: False: a setting is left out unless all of its runs are finished.
    """
    get = player.run if play else player.finished
    baselines = {seed: get(Setting(Coding(BASELINE)), seed) for seed in seeds}
    found = []
    for setting in settings:
        pairs = [(get(setting, seed), baselines[seed]) for seed in seeds]
        beside = [Beside.of(run, baseline) for run, baseline in pairs if run and baseline]
        if len(beside) == len(pairs):
            found.append(beside)
    return found


def sections(once: list[list[Beside]], thrice: list[list[Beside]]) -> dict[str, str]:
    """Return the page's tables by the names of their sections."""
    ordered = sorted((row[0] for row in once), key=lambda beside: beside.of_raw)
    return {
        "fedavg-once": markdown_table(_ONE_COLUMNS, [one_row(one) for one in ordered]),
        "fedavg-seeds": markdown_table(_MANY_COLUMNS, [many_row(row) for row in thrice]),
    }


@click.command()
@click.option("--mnist", type=click.Path(path_type=Path), help="Folder of the IDX files.")
@click.option("--only", help="Play the settings whose name begins so, one seed, and no others.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build", "bench-compression"))
@click.option("--finished", is_flag=True, help="Play nothing: tell what is finished.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
@click.option("--docs", is_flag=True, help=f"Write tables and picture into {PAGE}.")
def main(  # noqa: PLR0913, PLR0917
    mnist: Path | None,
    only: str | None,
    out: Path,
    finished: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    docs: bool,  # noqa: FBT001
) -> None:
    """Train LeNet-5 on ten devices with every codec; bytes and accuracy beside raw float32."""
    player = Player(mnist_folder(mnist), out)
    once, thrice = (*every_codec(), *ONCE), THRICE
    if only is not None:
        once = tuple(one for one in (*once, *thrice) if one.title.startswith(only))
        thrice = ()
    if not once:
        message = f"--only {only}: no setting's name begins so"
        raise click.UsageError(message)
    single = measured(player, once, SEEDS[:1], play=not finished)
    several = measured(player, thrice, SEEDS, play=not finished)
    print(table(_ONE_COLUMNS, [one_row(row[0]) for row in single]))
    if several:
        print(f"\n{table(_MANY_COLUMNS, [many_row(row) for row in several])}")
    if docs and only is None:
        for name, text in sections(single, several).items():
            put_section(PAGE, name, text)
        draw([row[0].run for row in (*single, *several)], PICTURE)
    elif docs:
        print("--only and --docs: a part of the runs is not written", file=sys.stderr)
    if as_json:
        print(json.dumps([[asdict(one) for one in row] for row in (*single, *several)]))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.compression.fedavg")
