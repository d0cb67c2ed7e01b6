"""Does anything grow? Many rounds with a real fleet: ``python -m benchmarks.soak``.

Broker, central and the gateways are processes, as a person would start them; the devices are
agents in one process beside them. Memory, threads, open files and databases are watched over
all rounds, and at the end the books are audited.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import psutil

from benchmarks import soak_picture
from benchmarks.fleet import BenchmarkError, free_port, mosquitto, without_evaluation
from benchmarks.soak_books import audit
from benchmarks.soak_figures import MIB, Course, Sample, sparkline
from fedfleet import logs
from fedfleet.client import FleetClient
from fedfleet.errors import FleetError
from fedfleet.screen import Screen
from fedfleet.statuses import read_status
from fedfleet.tables import size, table
from fedfleet.testbed.choices import Options
from fedfleet.testbed.plan import Place, Plan, Process, make_plan, mosquitto_config
from fedfleet.testbed.processes import Processes, stopped_by_sigterm
from fedfleet.testbed.run import Run
from schemas.topics import Kind, Topic

TASK = "soak"
_DEVICES = "devices"
_START_S = 120.0
_STALL_S = 120.0
_POLL_S = 0.2
_SAMPLE_S = 1.0
_SETTLE_S = 8.0


class Watch:
    """Looks at each process once a second."""

    def __init__(self) -> None:
        self.samples: dict[str, list[Sample]] = {}
        self._processes: dict[str, psutil.Process] = {}
        self._next_s = 0.0

    def add(self, name: str, pid: int) -> None:
        """Watch one process."""
        self._processes[name] = psutil.Process(pid)
        self.samples[name] = []

    def look(self, committed: int) -> None:
        """Take a sample of each when it is time."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _SAMPLE_S
        for name, process in self._processes.items():
            with process.oneshot():
                rss_bytes = int(process.memory_info().rss)
                sample = Sample(committed, rss_bytes, process.num_threads(), process.num_fds())
            self.samples[name].append(sample)


class Soak:
    """One fleet that plays many rounds."""

    def __init__(self, rounds: int, devices: int, regions: int, folder: Path) -> None:
        """Plan it; nothing is started.

        Raises:
            BenchmarkError: There is no Mosquitto.
        """
        self.rounds, self.devices, self.regions = rounds, devices, regions
        self.place = Place(folder, free_port(), mosquitto(), is_root=os.geteuid() == 0)
        self.plan = soak_plan(rounds, devices, regions, self.place)
        self.watch = Watch()
        self.committed = 0
        self.seconds = 0.0

    @property
    def states(self) -> Path:
        """The folder of the state directories."""
        return self.place.folder / "state"

    def play(self, tell: Callable[[int], None]) -> None:
        """Play all rounds.

        Args:
            tell: Called with the rounds committed, now and then.

        Raises:
            FleetError: A process ended, somebody is missing, or the rounds do not go on.
        """
        self.place.folder.mkdir(parents=True, exist_ok=True)
        with Processes(self.place.folder / "logs") as processes:
            run = Run(self.plan, self.place, processes, Screen())
            self._start(run, processes)
            with run.connect() as client:
                run.wait_for_births(client, _START_S)
                client.publish(Topic(Kind.TASK_SUBMIT), json.dumps(self.plan.submission).encode())
                began_s = time.monotonic()
                self._follow(client, processes, tell)
                self.seconds = time.monotonic() - began_s
                time.sleep(_SETTLE_S)  # the last receipts, and what is written out at the end
            self.sizes = self._sizes()

    def courses(self, warm_up: int) -> list[Course]:
        """Return what each process did."""
        samples = self.watch.samples.items()
        return [Course(name, tuple(found), warm_up) for name, found in samples]

    def audit(self) -> list[str]:
        """Return what is wrong with the books."""
        return audit(self.states, TASK, self.rounds, self.devices, self.regions)

    def _start(self, run: Run, processes: Processes) -> None:
        self.place.mosquitto_config.write_text(mosquitto_config(self.place))
        processes.start(self.plan.broker)
        run.wait_for_port()
        for process in self.plan.services:
            running = processes.start(process)
            if process.name != _DEVICES:
                self.watch.add(process.name, running.child.pid)

    def _follow(
        self, client: FleetClient, processes: Processes, tell: Callable[[int], None]
    ) -> None:
        moved_s = time.monotonic()
        is_final = False
        while not is_final:
            processes.check()
            self.watch.look(self.committed)
            message = client.next_message(_POLL_S)
            status = read_status(message) if message is not None else None
            if status is not None and status.task == TASK:
                if status.abandoned or (status.is_final and status.state != "completed"):
                    error = (
                        f"the task is {status.state}: {status.reason or 'a round is abandoned'}"
                    )
                    raise BenchmarkError(error)
                if status.committed > self.committed:
                    moved_s = time.monotonic()
                    self.committed = status.committed
                    tell(self.committed)
                is_final = status.is_final
            if time.monotonic() - moved_s > _STALL_S:
                error = f"round {self.committed + 1} did not end within {_STALL_S:g} s"
                raise BenchmarkError(error)

    def _sizes(self) -> dict[str, int]:
        found = {}
        for name in ("central", *(f"gateway-region-{n + 1}" for n in range(self.regions))):
            for path in sorted((self.states / name).glob("*.db*")):
                found[f"{name}/{path.name}"] = path.stat().st_size
        return found


def soak_plan(rounds: int, devices: int, regions: int, place: Place) -> Plan:
    """Return central, gateways, and one process for all devices; nothing is evaluated."""
    options = Options(
        data="digits",
        devices=devices,
        regions=regions,
        rounds=rounds,
        model="mlp",
        codec="int8",
        broker="mosquitto",
        epochs=1,
    )
    plan = make_plan(options, place)
    services = [without_evaluation(one) for one in plan.services[: 1 + regions]]
    argv = (
        *(sys.executable, "-m", "benchmarks.soak_devices", "--broker", plan.url),
        *("--folder", str(place.folder / "state")),
        *("--devices", str(devices), "--regions", str(regions)),
    )
    services.append(Process(_DEVICES, argv, services[0].environment))
    submission = {**plan.submission, "task": TASK, "model_params": {"hidden": [64]}}
    return replace(plan, services=tuple(services), submission=submission)


def report(courses: list[Course], tolerance: float) -> str:
    """Return the table of what memory, threads and files did."""
    columns = (
        *("process", "start MiB", "end MiB", "max MiB", "deviation", "KiB/100 rounds"),
        *("threads", "files", "flat", "course"),
    )
    rows = []
    for course in courses:
        first, last = course.window[0], course.window[-1]
        is_flat = course.is_flat(tolerance) and not course.leaks_handles()
        rows.append(
            (
                course.name,
                f"{course.start_bytes / MIB:.1f}",
                f"{course.end_bytes / MIB:.1f}",
                f"{course.max_bytes / MIB:.1f}",
                f"{course.deviation:+.1%}",
                f"{course.slope_bytes / 1024:+.0f}",
                f"{first.threads}-{last.threads}",
                f"{first.files}-{last.files}",
                "yes" if is_flat else "NO",
                sparkline([one.rss_bytes for one in course.samples]),
            )
        )
    return table(columns, rows)


def as_object(course: Course) -> dict[str, object]:
    """Return a course's figures for JSON."""
    return {
        "process": course.name,
        "start_bytes": course.start_bytes,
        "end_bytes": course.end_bytes,
        "max_bytes": course.max_bytes,
        "deviation": course.deviation,
        "slope_bytes_per_100_rounds": course.slope_bytes,
        "threads": course.window[-1].threads,
        "files": course.window[-1].files,
        "rss_bytes_by_rounds": [(one.committed, one.rss_bytes) for one in course.samples],
    }


@click.command()
@click.option("--rounds", type=click.IntRange(10), default=1000, show_default=True)
@click.option("--devices", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--regions", type=click.IntRange(1), default=2, show_default=True)
@click.option("--warm-up", type=click.FloatRange(0, 0.9), default=0.2, show_default=True)
@click.option("--tolerance", type=click.FloatRange(0), default=0.05, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where to work; decides the disk.")
@click.option("--picture", type=click.Path(path_type=Path), help="Write the courses as PNG.")
@click.option("--keep", is_flag=True, help="Leave logs and states there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def main(  # noqa: PLR0913, PLR0917 - one argument an option
    rounds: int,
    devices: int,
    regions: int,
    warm_up: float,
    tolerance: float,
    out: Path | None,
    picture: Path | None,
    keep: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Play many rounds; exit with 1 when memory is not flat or the books are not in order."""
    logs.configure("warning", "json")
    folder = (out or Path("runs", f"soak-{time.strftime('%Y%m%d-%H%M%S')}")).resolve()
    soak = Soak(rounds, devices, regions, folder)
    try:
        with stopped_by_sigterm():
            soak.play(_tell)
    except FleetError as error:
        text = f"{error}\nstates and logs are in {folder}"
        raise click.ClickException(text) from error
    courses = soak.courses(int(rounds * warm_up))
    faults = soak.audit()
    each_s = soak.seconds / rounds
    print(f"{rounds} rounds with {devices} devices in {soak.seconds:.0f} s, {each_s:.3f} s each\n")
    print(report(courses, tolerance))
    print("\n" + table(("file", "size"), [(name, size(n)) for name, n in soak.sizes.items()]))
    print("\nbooks: " + ("in order" if not faults else "; ".join(faults)))
    if picture is not None:
        soak_picture.save(courses, picture)
    if not keep:
        shutil.rmtree(folder)
    if as_json:
        print(json.dumps({"faults": faults, "courses": [as_object(one) for one in courses]}))
    is_flat = all(one.is_flat(tolerance) and not one.leaks_handles() for one in courses)
    if faults or not is_flat:
        raise SystemExit(1)


def _tell(committed: int) -> None:
    if committed % 50 == 0:
        print(f"{committed} rounds committed", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.soak")
