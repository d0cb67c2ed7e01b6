"""``python -m tests.simulation.mutate``: proves that the simulation finds every planted bug."""

import json
import multiprocessing
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tests.simulation import budget_mutants, memory_mutants, mutants  # noqa: F401 - they register
from tests.simulation.__main__ import play, scratch
from tests.simulation.planting import MUTANTS, Mutant
from tests.simulation.world import silence_logs


@dataclass(frozen=True, slots=True)
class Kill:
    """How a mutant was found; ``seeds`` is None when it was not."""

    mutant: str
    seeds: int | None
    violation: str | None


def hunt(mutant: Mutant, limit: int) -> Kill:
    """Run seed after seed with the bug planted, until a promise is broken."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder, mutant.planted():
        for seed in range(limit):
            outcome, _ = play(seed, Path(folder))
            if outcome.violation:
                return Kill(mutant.name, seed + 1, outcome.violation)
    return Kill(mutant.name, None, None)


def _hunt_one(task: tuple[int, int]) -> Kill:
    silence_logs()
    index, limit = task
    return hunt(MUTANTS[index], limit)


def table(kills: list[Kill]) -> str:
    """Return the table of docs/reliability.md."""
    rows = ["| planted bug | seeds needed | told as |", "|---|---|---|"]
    rows += [f"| {k.mutant} | {k.seeds or 'not found'} | {_told(k)} |" for k in kills]
    return "\n".join(rows)


def _told(kill: Kill) -> str:
    return (kill.violation or "not found").partition(":")[0]


@click.command()
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--only", help="Mutants whose name holds this text.")
@click.option("--json", "as_json", is_flag=True)
def mutate(limit: int, processes: int, only: str | None, as_json: bool) -> None:
    """Plant bugs, one at a time, and count the seeds until the simulation finds each."""
    chosen = [i for i, one in enumerate(MUTANTS) if only is None or only in one.name]
    kills = []
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for kill in pool.imap(_hunt_one, [(index, limit) for index in chosen]):
            kills.append(kill)
            found = f"{kill.seeds} seeds" if kill.seeds else "NOT FOUND"
            click.echo(f"{found:>12}  {kill.mutant} ({_told(kill)})", err=True)
    if as_json:
        click.echo(json.dumps([asdict(kill) for kill in kills]))
    else:
        click.echo(table(kills))
    raise SystemExit(1 if any(kill.seeds is None for kill in kills) else 0)


if __name__ == "__main__":
    mutate(prog_name="python -m tests.simulation.mutate")
