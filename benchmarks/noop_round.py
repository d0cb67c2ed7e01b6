"""How long a round takes in which nothing is trained: ``python -m benchmarks.noop_round``.

Every device is a process of its own, behind one gateway; LeNet-5 goes down and an update of
zeros comes up as raw float32, 246.8 kB each; every receipt is durable. Beside it stand one
durable write on the same disk and the same round over plain paho, taken in the same run.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import click

from benchmarks import plain_paho, report
from benchmarks.disk import WRITE_BYTES, DiskProbe
from benchmarks.figures import Spread, ms
from benchmarks.fleet import Counts, MeteredProcesses, NoopFleet, Played
from benchmarks.namespace import enter_own_network
from fedfleet import logs
from fedfleet.errors import FleetError
from fedfleet.testbed.processes import stopped_by_sigterm

_WRITES = 50


@click.command()
@click.option(
    "--devices", type=click.IntRange(1), multiple=True, default=(2, 10), show_default=True
)
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True)
@click.option("--warm-up", type=click.IntRange(1), default=3, show_default=True)
@click.option("--observed", type=click.IntRange(2), default=15, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where to work; decides the disk.")
@click.option("--keep", is_flag=True, help="Leave logs and states there.")
@click.option("--strict", is_flag=True, help="Exit with 1 when an aim is missed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def main(  # noqa: PLR0913, PLR0917 - one argument an option
    devices: tuple[int, ...],
    rounds: int,
    warm_up: int,
    observed: int,
    out: Path | None,
    keep: bool,  # noqa: FBT001
    strict: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure rounds that train nothing, and name what takes the time."""
    logs.configure("warning", "json")
    folder = (out or Path("runs", f"bench-{time.strftime('%Y%m%d-%H%M%S')}")).resolve()
    folder.mkdir(parents=True)
    try:
        with stopped_by_sigterm():
            results = measure(devices, Counts(warm_up, rounds, observed), folder)
    except FleetError as error:
        text = f"{error}\nstates and logs are in {folder}"
        raise click.ClickException(text) from error
    if not keep:
        shutil.rmtree(folder)
    if as_json:
        print(json.dumps({"results": [report.as_object(one) for one in results]}))
    if strict and not all(one.is_met for one in results):
        raise SystemExit(1)


def measure(devices: tuple[int, ...], counts: Counts, folder: Path) -> list[report.Result]:
    """Measure disk, plain paho and the fleet in turns, and print all that was found."""
    print(f"load {_loads()}; {os.cpu_count()} CPUs; working in {folder}", flush=True)
    probe = DiskProbe(folder)
    probe.measure(_WRITES)
    taken: list[tuple[int, list[float], Played, float]] = []
    for count in devices:
        load = os.getloadavg()[0]
        plain_s, played = _one_fleet(count, counts, folder / f"{count}-devices")
        taken.append((count, plain_s, played, load))
        probe.measure(_WRITES)
        print(f"{count} devices measured, load {_loads()}", flush=True)
    results = [
        report.Result(count, plain_s, played, probe.unit_s, load)
        for count, plain_s, played, load in taken
    ]
    _tell(probe, results)
    return results


def _one_fleet(devices: int, counts: Counts, folder: Path) -> tuple[list[float], Played]:
    fleet = NoopFleet(devices, counts, folder)
    with MeteredProcesses(folder / "logs") as processes:
        fleet.start_broker(processes)
        rounds = counts.warm_up + counts.timed
        plain_s = plain_paho.measure(folder, fleet.place.port, devices, rounds)
        return plain_s[counts.warm_up :], fleet.play(processes)


def _tell(probe: DiskProbe, results: list[report.Result]) -> None:
    print(f"\nOne durable write of {WRITE_BYTES // 1000} kB on this disk")
    print(f"  write and fdatasync, appended:     {Spread.of(probe.appends_s)}")
    print(f"  commit in SQLite (WAL, FULL):      {Spread.of(probe.commits_s)}")
    print(f"  the cheaper one counts for the aims: {ms(probe.unit_s)} ms")
    print("\nRounds: median [min-max]")
    print(report.rounds_table(results))
    for one in results:
        print(f"\nWhere the time goes, {one.devices} devices")
        print(report.legs_table(one))
        print(f"\nWhat a round costs, {one.devices} devices")
        print(report.usage_table(one))
        print(f"\nWhat a round publishes, {one.devices} devices")
        print(report.traffic_table(one))
    print()
    for one in results:
        print(one.verdict())


def _loads() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    enter_own_network(("-m", "benchmarks.noop_round", *sys.argv[1:]))
    main(prog_name="python -m benchmarks.noop_round")
