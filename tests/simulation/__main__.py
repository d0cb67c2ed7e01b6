"""``python -m tests.simulation``: many seeds, or one seed with its trace."""

import functools
import gc
import multiprocessing
import multiprocessing.util
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.simulation.observed import ViolationError
from tests.simulation.swarm import swarm_of
from tests.simulation.world import World, silence_logs

_MEMORY = Path("/dev/shm")
_SHOWN = 20
_COLLECT_EVERY = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed; ``violation`` is None when every promise was kept."""

    seed: int
    violation: str | None
    events: int
    faults: int
    simulated_s: float
    counts: dict[str, int] = field(default_factory=dict)


def scratch() -> str | None:
    """Return where files cost least, if there is such a place."""
    return str(_MEMORY) if _MEMORY.is_dir() else None


def play(seed: int, folder: Path, *, keep_trace: bool = False) -> tuple[Outcome, World]:
    """Run one seed to its end."""
    world = World(seed, folder=folder, keep_trace=keep_trace)
    violation = None
    try:
        world.run()
    except ViolationError as error:
        violation = str(error)
    except Exception:  # noqa: BLE001 - a fault of a program is a finding as well
        violation = traceback.format_exc()
    finally:
        world.close()
    work = world.work
    outcome = Outcome(
        seed, violation, work.events, world.faults, work.now_s, dict(world.ledger.counts)
    )
    return outcome, world


@functools.cache
def _workplace() -> Path:
    """Make this process one that plays many worlds; return where their files lie."""
    silence_logs()
    gc.freeze()
    gc.disable()  # what a world leaves behind is collected between worlds
    folder = Path(tempfile.mkdtemp(prefix="fedfleet-simulation-", dir=scratch()))
    multiprocessing.util.Finalize(None, shutil.rmtree, (folder, True), exitpriority=1)
    return folder


def _play_one(seed: int) -> Outcome:
    folder = _workplace()
    if seed % _COLLECT_EVERY == 0:
        gc.collect()
    return play(seed, folder)[0]


def play_all(seeds: Iterable[int], processes: int) -> Iterator[Outcome]:
    """Run seeds, several at a time; outcomes come in no particular order."""
    if processes == 1:
        yield from map(_play_one, seeds)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_play_one, seeds, chunksize=8)
        pool.close()
        pool.join()


def replay(seed: int) -> int:
    """Run one seed and print all that happened; return the exit code."""
    silence_logs()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        outcome, world = play(seed, Path(folder), keep_trace=True)
    click.echo(f"{swarm_of(seed)}\n")
    for line in world.work.trace.lines:
        click.echo(line)
    click.echo(f"\nseed {seed}: trace {world.work.trace.digest()}")
    click.echo(outcome.violation or "every promise was kept")
    return 1 if outcome.violation else 0


def run_many(first: int, count: int, processes: int) -> int:
    """Run seeds with a line of progress; return the exit code."""
    began_s = time.monotonic()
    totals: Counter[str] = Counter()
    failed: list[Outcome] = []
    for done, outcome in enumerate(play_all(range(first, first + count), processes), 1):
        totals.update(events=outcome.events, faults=outcome.faults)
        totals.update(outcome.counts)
        totals["simulated_s"] += int(outcome.simulated_s)
        if outcome.violation:
            failed.append(outcome)
            _tell(outcome, len(failed))
        if sys.stderr.isatty() or done % 1000 == 0 or done == count:
            took_s = time.monotonic() - began_s
            end = "\r" if sys.stderr.isatty() and done < count else "\n"
            text = (
                f"{done} of {count} seeds, {len(failed)} violations, {done / took_s:.0f} a second"
            )
            click.echo(f"{text}{end}", nl=False, err=True)
    took_s = time.monotonic() - began_s
    click.echo(
        f"{count} seeds in {took_s:.0f} s: {len(failed)} violations; {totals['faults']} faults, "
        f"{totals['events']} events, {totals['simulated_s']} simulated seconds; "
        f"{totals['committed']} rounds committed; receipts: {totals['accepted']} accepted, "
        f"{totals['duplicate']} duplicate, {totals['late']} late, {totals['rejected']} rejected"
    )
    return 1 if failed else 0


def _tell(outcome: Outcome, number: int) -> None:
    if number <= _SHOWN:
        click.echo(f"seed {outcome.seed}: {outcome.violation}", err=True)
        click.echo(f"  to see it again: make simulate SEED={outcome.seed}", err=True)


@click.command()
@click.option("--seed", type=int, help="Run this one and print what happened.")
@click.option("--first", type=int, default=0, show_default=True)
@click.option("--count", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
def simulate(seed: int | None, first: int, count: int, processes: int) -> None:
    """Live whole fleets through bad luck, and check every promise after every event."""
    if seed is not None:
        raise SystemExit(replay(seed))
    raise SystemExit(run_many(first, count, processes))


if __name__ == "__main__":
    simulate(prog_name="python -m tests.simulation")
