"""One fleet of real processes that plays rounds in which nothing is trained."""

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks.observer import Observer
from benchmarks.sightings import Sighting
from fedfleet.client import FleetClient
from fedfleet.errors import FleetError
from fedfleet.screen import Screen
from fedfleet.statuses import read_status
from fedfleet.testbed.choices import Options
from fedfleet.testbed.plan import Place, Plan, Process, make_plan, mosquitto_config
from fedfleet.testbed.processes import Processes, Running
from fedfleet.testbed.run import Run
from schemas.tasks import RoundSummary
from schemas.topics import Kind, Topic

TASK = "noop"
_BIRTHS_TIMEOUT_S = 120.0
_STALL_S = 120.0
_POLL_S = 0.05
_LISTEN_TIMEOUT_S = 10.0
#: Rounds that may pass while the observer connects, and between two that it saw whole.
_OBSERVER_SLACK = 12
#: Not on every user's PATH.
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


class BenchmarkError(FleetError):
    """The fleet did not come up, or its rounds did not go on."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rounds: not counted ones, counted ones, and observed ones after them."""

    warm_up: int
    timed: int
    observed: int

    @property
    def in_all(self) -> int:
        """Rounds of the task."""
        return self.warm_up + self.timed + self.observed + _OBSERVER_SLACK


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes have used since their start.

    Attributes:
        cpu_s: By process.
        written_bytes: Sent to the disk, by process.
        loopback_bytes: Sent over the loopback interface of this network namespace, by anybody.
    """

    cpu_s: dict[str, float]
    written_bytes: dict[str, int]
    loopback_bytes: int


@dataclass(frozen=True, slots=True)
class Played:
    """What was measured of one fleet.

    Attributes:
        commits_s: When each timed round was committed as its status told it, and first the last
            round of the warm-up; monotonic seconds.
        observed_s: The same of the observed rounds.
        summaries: How central summarized the timed rounds.
        before: Usage at the first of ``commits_s``.
        after: Usage at the last.
        sightings: What passed the broker in the observed rounds.
    """

    commits_s: tuple[float, ...]
    observed_s: tuple[float, ...]
    summaries: tuple[RoundSummary, ...]
    before: Usage
    after: Usage
    sightings: tuple[Sighting, ...]


class MeteredProcesses(Processes):
    """Processes whose use of this machine can be read."""

    def __init__(self, log_dir: Path) -> None:
        super().__init__(log_dir)
        self.by_name: dict[str, psutil.Process] = {}

    def start(self, process: Process) -> Running:
        """Start one process."""
        running = super().start(process)
        self.by_name[process.name] = psutil.Process(running.child.pid)
        return running

    def usage(self) -> Usage:
        """Return what they have used until now."""
        cpu_s, written = {}, {}
        for name, process in self.by_name.items():
            with process.oneshot():
                times = process.cpu_times()
                cpu_s[name] = times.user + times.system
                written[name] = _written_bytes(process)
        return Usage(cpu_s, written, _loopback_bytes())


@dataclass(slots=True)
class _Rounds:
    """The task as its statuses tell it."""

    commits_s: list[float] = field(default_factory=list)
    summaries: dict[int, RoundSummary] = field(default_factory=dict)


class NoopFleet:
    """A broker, central, one gateway and some devices."""

    def __init__(self, devices: int, counts: Counts, folder: Path) -> None:
        """Plan it; nothing is started.

        Raises:
            BenchmarkError: There is no Mosquitto.
        """
        self.place = Place(folder, free_port(), mosquitto(), is_root=os.geteuid() == 0)
        self.plan = noop_plan(devices, counts.in_all, self.place)
        self._counts = counts

    def start_broker(self, processes: Processes) -> None:
        """Start the broker and wait until it listens.

        Raises:
            BenchmarkError: It does not.
        """
        self.place.folder.mkdir(parents=True, exist_ok=True)
        self.place.mosquitto_config.write_text(mosquitto_config(self.place))
        processes.start(self.plan.broker)
        end_s = time.monotonic() + _LISTEN_TIMEOUT_S
        while time.monotonic() < end_s:
            processes.check()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.place.port)) == 0:
                    return
            time.sleep(_POLL_S)
        message = f"the broker does not listen after {_LISTEN_TIMEOUT_S:g} s"
        raise BenchmarkError(message)

    def play(self, processes: MeteredProcesses) -> Played:
        """Start the programs and play the rounds; the broker runs already.

        Raises:
            FleetError: A process ended, somebody is missing, or the rounds do not go on.
        """
        for process in self.plan.services:
            processes.start(process)
        run = Run(self.plan, self.place, processes, Screen())
        with run.connect() as client:
            run.wait_for_births(client, _BIRTHS_TIMEOUT_S)
            payload = json.dumps(self.plan.submission).encode()
            client.publish(Topic(Kind.TASK_SUBMIT), payload)
            return self._measure(client, processes)

    def _measure(self, client: FleetClient, processes: MeteredProcesses) -> Played:
        first = self._counts.warm_up
        last = first + self._counts.timed
        rounds = _Rounds()
        _follow(client, processes, rounds, first)
        before = processes.usage()
        _follow(client, processes, rounds, last)
        after = processes.usage()
        observer = Observer(self.place.port)
        observer.start()
        _follow(client, processes, rounds, self._counts.in_all)
        observer.stop()
        timed = [rounds.summaries[number] for number in sorted(rounds.summaries)][first:last]
        return Played(
            commits_s=tuple(rounds.commits_s[first - 1 : last]),
            observed_s=tuple(rounds.commits_s[last + _OBSERVER_SLACK - 1 :]),
            summaries=tuple(timed),
            before=before,
            after=after,
            sightings=tuple(observer.sightings),
        )


def noop_plan(devices: int, rounds: int, place: Place) -> Plan:
    """Return a fleet whose rounds train nothing, move 246.8 kB each way, and evaluate nothing."""
    options = Options(
        data="digits",
        devices=devices,
        regions=1,
        rounds=rounds,
        model="lenet5",
        codec="raw-f32",
        broker="mosquitto",
        epochs=0,
    )
    plan = make_plan(options, place)
    services = tuple(without_evaluation(process) for process in plan.services)
    return replace(plan, services=services, submission={**plan.submission, "task": TASK})


def without_evaluation(process: Process) -> Process:
    """Return central's process without held-out data; any other as it is."""
    argv = list(process.argv)
    while "--eval-data" in argv:
        at = argv.index("--eval-data")
        del argv[at : at + 2]
    return replace(process, argv=tuple(argv))


def _follow(client: FleetClient, processes: Processes, rounds: _Rounds, until: int) -> None:
    """Note commits until so many rounds are committed."""
    told_s = time.monotonic()
    while len(rounds.commits_s) < until:
        for at_s, committed, history in _statuses(client, processes):
            new = committed - len(rounds.commits_s)
            rounds.commits_s.extend([at_s] * new)
            rounds.summaries.update({item.round: item for item in history})
            told_s = at_s
        if time.monotonic() - told_s > _STALL_S:
            message = f"round {len(rounds.commits_s) + 1} did not end within {_STALL_S:g} s"
            raise BenchmarkError(message)


def _statuses(
    client: FleetClient, processes: Processes
) -> Iterator[tuple[float, int, tuple[RoundSummary, ...]]]:
    processes.check()
    message = client.next_message(_POLL_S)
    at_s = time.monotonic()
    status = read_status(message) if message is not None else None
    if status is None or status.task != TASK:
        return
    if status.abandoned or (status.is_final and status.state != "completed"):
        error = f"the task is {status.state}: {status.reason or 'a round was abandoned'}"
        raise BenchmarkError(error)
    yield at_s, status.committed, status.history


def _written_bytes(process: psutil.Process) -> int:
    counters = getattr(process, "io_counters", None)
    return int(counters().write_bytes) if counters is not None else 0


def _loopback_bytes() -> int:
    counters = psutil.net_io_counters(pernic=True)
    return sum(one.bytes_sent for name, one in counters.items() if name in {"lo", "lo0"})


def mosquitto() -> str:
    """Return the path of the broker's program.

    Raises:
        BenchmarkError: It is not installed.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_FOLDERS))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        message = (
            "mosquitto is not installed: apt-get install mosquitto, or brew install mosquitto"
        )
        raise BenchmarkError(message)
    return found


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
