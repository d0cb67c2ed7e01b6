"""What a failpoint costs that is not armed: ``python -m benchmarks.failpoint_cost``.

Beside it stands a call of an empty function, taken in the same run; then a no-op round is played
whose programs count how many failpoints they come by, which gives the share of the round.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import click

from benchmarks.figures import intervals, ms
from benchmarks.fleet import Counts, MeteredProcesses, NoopFleet
from benchmarks.namespace import enter_own_network
from fedfleet import logs
from fedfleet.errors import FleetError
from fedfleet.testbed.plan import Plan, Process
from fedfleet.testbed.processes import stopped_by_sigterm
from transport.failpoints import arm, failpoint

_CALLS = 1_000_000
_REPEATS = 7
_NS = 1e9


@dataclass(frozen=True, slots=True)
class Call:
    """Nanoseconds of processor time of one call, the loop around it taken off."""

    failpoint_ns: float
    empty_ns: float

    @property
    def ratio(self) -> float:
        return self.failpoint_ns / self.empty_ns


@dataclass(frozen=True, slots=True)
class Share:
    """What the calls are of a round.

    Attributes:
        devices: Device processes.
        round_s: One round, mean.
        visits: Calls a round, of each process; its start is spread over its rounds.
    """

    devices: int
    round_s: float
    visits: dict[str, float]

    def of_round(self, call: Call) -> float:
        """Return all processes' calls as a share of the round, as if none ran beside another."""
        return sum(self.visits.values()) * call.failpoint_ns / _NS / self.round_s


def _nothing(_name: str) -> None:
    pass


def _loop() -> float:
    began = time.thread_time()
    for _ in range(_CALLS):
        pass
    return time.thread_time() - began


def _called(place: Callable[[str], None]) -> float:
    began = time.thread_time()
    for _ in range(_CALLS):
        place("transport.commit.before")
    return time.thread_time() - began


def measure_call() -> Call:
    """Return the medians of several repeats, taken in turns."""
    arm(None)
    taken = [(_loop(), _called(failpoint), _called(_nothing)) for _ in range(_REPEATS)]
    return Call(
        failpoint_ns=median((armed - loop) / _CALLS * _NS for loop, armed, _ in taken),
        empty_ns=median((empty - loop) / _CALLS * _NS for loop, _, empty in taken),
    )


def measure_share(devices: int, counts: Counts, folder: Path) -> Share:
    """Play no-op rounds with programs that count.

    Raises:
        FleetError: The fleet does not come up, or its rounds do not go on.
    """
    fleet = NoopFleet(devices, counts, folder)
    fleet.plan = counted(fleet.plan, folder)
    with MeteredProcesses(folder / "logs") as processes:
        fleet.start_broker(processes)
        played = fleet.play(processes)
    spans = intervals(played.commits_s)
    visits = {
        process.name: int((folder / f"{process.name}.visits").read_text()) / counts.in_all
        for process in fleet.plan.services
    }
    return Share(devices, sum(spans) / len(spans), visits)


def counted(plan: Plan, folder: Path) -> Plan:
    """Return a plan whose services count the failpoints that they come by."""
    return replace(plan, services=tuple(_counted(process, folder) for process in plan.services))


def _counted(process: Process, folder: Path) -> Process:
    at = process.argv.index("fedfleet")
    file = str(folder / f"{process.name}.visits")
    argv = (*process.argv[:at], "benchmarks.visits", file, *process.argv[at + 1 :])
    return replace(process, argv=argv)


@click.command()
@click.option("--devices", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where to work; decides the disk.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def main(devices: int, rounds: int, out: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Measure a failpoint that is not armed, and its share of a round that trains nothing."""
    logs.configure("warning", "json")
    folder = (out or Path("runs", f"failpoints-{time.strftime('%Y%m%d-%H%M%S')}")).resolve()
    folder.mkdir(parents=True)
    print(f"load {os.getloadavg()[0]:.1f}; {os.cpu_count()} CPUs", flush=True)
    call = measure_call()
    print(
        f"one failpoint, not armed: {call.failpoint_ns:.0f} ns; "
        f"an empty function: {call.empty_ns:.0f} ns; ratio {call.ratio:.2f}",
        flush=True,
    )
    try:
        with stopped_by_sigterm():
            share = measure_share(devices, Counts(3, rounds, 2), folder)
    except FleetError as error:
        text = f"{error}\nstates and logs are in {folder}"
        raise click.ClickException(text) from error
    shutil.rmtree(folder)
    told = ", ".join(f"{name} {count:.0f}" for name, count in share.visits.items())
    print(
        f"a no-op round of {devices} devices: {ms(share.round_s)} ms; visits: {told}; "
        f"together {share.of_round(call):.5%} of the round"
    )
    if as_json:
        print(json.dumps(_object(call, share)))


def _object(call: Call, share: Share) -> dict[str, object]:
    return {
        "failpoint_ns": round(call.failpoint_ns, 1),
        "empty_ns": round(call.empty_ns, 1),
        "ratio": round(call.ratio, 3),
        "devices": share.devices,
        "round_ms": round(share.round_s * 1000, 3),
        "visits": {name: round(count, 1) for name, count in share.visits.items()},
        "share": share.of_round(call),
    }


if __name__ == "__main__":
    enter_own_network(("-m", "benchmarks.failpoint_cost", *sys.argv[1:]))
    main(prog_name="python -m benchmarks.failpoint_cost")
