"""A whole fleet of real processes over Mosquitto, for tests: start, kill, restart, look at it.

Every program is started by the command that a person would type and keeps its own state
directory; tasks are submitted with ``mosquitto_pub`` and read back with ``mosquitto_sub``.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typing_extensions import Self

from schemas.envelope import decode_frame
from schemas.messages import DeviceState, GatewayState
from schemas.tasks import FINAL_STATES
from tests.support import fleet_watch
from tests.support.brokers import ProcessBroker, mosquitto_broker
from tests.support.fleet_programs import Program, fedfleet_command
from tests.support.fleet_watch import Watcher

T = TypeVar("T")
Status = dict[str, Any]

CENTRAL = "central"
SUBMIT = "fl/v1/ctl/task/submit"
_CENTRAL_STATE = "fl/v1/ctl/central/state"
_FILTERS = ("fl/v1/ctl/#", "fl/v1/+/+/up/state")
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a fleet consists of.

    Attributes:
        regions: One gateway each; devices are dealt to them in turn.
        devices: Their ids.
        data: The data source, of which each device has one shard.
        central: Further arguments of central.
        environment: Variables of every program.
        protocol: ``--mqtt-protocol`` of every program.
        backends: What a device trains with, for those that do not choose by themselves.
    """

    devices: Sequence[str] = ("d1", "d2", "d3", "d4")
    regions: Sequence[str] = ("north", "south")
    data: str = "digits"
    central: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    protocol: str = "auto"
    backends: Mapping[str, str] = field(default_factory=dict)

    def region_of(self, device: str) -> str:
        return self.regions[self.devices.index(device) % len(self.regions)]


@contextlib.contextmanager
def running_fleet(
    folder: Path,
    shape: Shape | None = None,
    *,
    prepare: Callable[["Fleet"], None] | None = None,
    **broker: Any,
) -> Iterator["Fleet"]:
    """Run a broker and a fleet; nothing of it is left at the end.

    Args:
        folder: Where states and logs lie.
        shape: What it consists of.
        prepare: Called before anything but the broker is started.
        broker: As ``mosquitto_broker`` takes it; it forgets everything when it is killed.
    """
    with mosquitto_broker(**broker) as running, Fleet(folder, running, shape or Shape()) as fleet:
        if prepare is not None:
            prepare(fleet)
        fleet.start()
        yield fleet


class Fleet:
    """The processes by name: ``central``, ``gateway-REGION`` and the devices' ids."""

    def __init__(self, folder: Path, broker: ProcessBroker, shape: Shape) -> None:
        self.folder = folder
        self.broker = broker
        self.shape = shape
        self.programs: dict[str, Program] = {}
        self._watcher: Watcher | None = None
        self._boots: dict[str, int] = {}
        self._add_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            program.kill()
        if self._watcher is not None:
            self._watcher.close()

    @property
    def watcher(self) -> Watcher:
        if self._watcher is None:
            self._watcher = Watcher(self.broker.port, _FILTERS)
        return self._watcher

    @property
    def gateways(self) -> list[str]:
        return [f"gateway-{region}" for region in self.shape.regions]

    def state_dir(self, name: str) -> Path:
        return self.folder / name

    def program(self, name: str) -> Program:
        return self.programs[name]

    # -- processes -------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start these programs, or all, and wait for their births."""
        _ = self.watcher
        for name in names or self.programs:
            self.programs[name].start()
        self.wait_until_online(*names)

    def kill(self, *names: str) -> None:
        """SIGKILL; ``broker`` is the broker."""
        for name in names:
            if name == "broker":
                self.broker.kill()
            else:
                self._boots[name] = self.boot(name) or 0
                self.programs[name].kill()

    def restart(self, *names: str) -> None:
        """Start again what was killed, and wait until it is there in a new life."""
        for name in names:
            if name == "broker":
                self.broker.start()
            else:
                self.programs[name].start()
        self.wait_until_online(*(name for name in names if name != "broker"))

    def freeze(self, *names: str) -> None:
        for name in names:
            self.programs[name].freeze()

    def thaw(self, *names: str) -> None:
        for name in names:
            self.programs[name].thaw()

    def heal(self) -> None:
        """Bring everything back: nothing frozen, nothing dead, no task under way."""
        self.thaw(*self.programs)
        dead = [name for name, program in self.programs.items() if not program.is_running]
        self.restart(*dead)
        self.wait_until_online()
        for task in self._live_tasks():
            self.control(task, "cancel")
            self.wait_for(task, is_final)

    def wait_until_online(self, *names: str, within_s: float = _START_S) -> None:
        """Wait for the births of these programs, or of all."""
        missing = lambda: [n for n in names or self.programs if not self._is_online(n)]  # noqa: E731
        if not self.watcher.wait(lambda: not missing(), within_s):
            self.fail(f"not online after {within_s:g} s: {', '.join(missing())}")

    # -- tasks -----------------------------------------------------------------------------

    def submit(self, task: Mapping[str, Any] | str) -> str:
        """Publish a task with ``mosquitto_pub``; return its id, if it has one."""
        text = task if isinstance(task, str) else json.dumps(task)
        self.publish(SUBMIT, text.encode())
        return str(json.loads(text).get("task", ""))

    def control(self, task: str, action: str) -> None:
        self.publish(f"fl/v1/ctl/task/{task}/control", json.dumps({"action": action}).encode())

    def publish(self, topic: str, payload: bytes, *options: str) -> None:
        done = fleet_watch.publish(self.broker.port, topic, payload, *options)
        assert done.returncode == 0, done.stderr

    def tasks(self) -> list[str]:
        """Return the ids of all tasks that have a status, by name."""
        topics = (topic.split("/") for topic in self.watcher.newest())
        return sorted(levels[4] for levels in topics if levels[-1] == "status")

    def statuses(self, task: str) -> list[Status]:
        """Return every status of a task that was seen, the oldest first."""
        payloads = self.watcher.all(_status_topic(task))
        return [json.loads(payload) for payload in payloads if payload]

    def retained(self, task: str) -> Status:
        """Return a task's retained status, as a new ``mosquitto_sub`` reads it now."""
        payload = fleet_watch.read_retained(self.broker.port, _status_topic(task))
        if payload is None:
            self.fail(f"no status of {task} is retained")
        return dict(json.loads(payload))

    def wait_for(
        self, task: str, condition: Callable[[Status], T | None], within_s: float = 60.0
    ) -> Status:
        """Wait until the newest status of a task fulfils a condition, and return it."""

        def found() -> Status | None:
            statuses = self.statuses(task)
            return statuses[-1] if statuses and condition(statuses[-1]) else None

        status = self.watcher.wait(found, within_s)
        if status is None:
            last = self.statuses(task)[-1:]
            self.fail(f"{task}: not within {within_s:g} s; the last status is {last}")
        return status

    def complete(self, task: str, within_s: float = 90.0) -> Status:
        """Wait until a task has ended, and expect that it is completed."""
        status = self.wait_for(task, is_final, within_s)
        if status["state"] != "completed":
            self.fail(f"{task} is {status['state']}: {status.get('reason')}")
        return status

    def fail(self, text: str) -> Any:
        tails = "\n".join(program.tail for program in self.programs.values())
        pytest.fail(f"{text}\n{tails}", pytrace=True)

    # -- inside ----------------------------------------------------------------------------

    def _add_all(self) -> None:
        self._add(CENTRAL, "central", *self.shape.central)
        for region in self.shape.regions:
            self._add(f"gateway-{region}", "gateway", "--region", region)
        count = len(self.shape.devices)
        for index, device in enumerate(self.shape.devices):
            who = ("--region", self.shape.region_of(device), "--id", device)
            data = ("--data", self.shape.data, "--shard", f"{index + 1}/{count}")
            backend = ("--backend", self.shape.backends.get(device, "auto"))
            self._add(device, "device", *who, *data, *backend)

    def _add(self, name: str, verb: str, *arguments: str) -> None:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        common = ("--broker", self.broker.url, "--mqtt-protocol", self.shape.protocol)
        state = ("--state-dir", str(self.state_dir(name)))
        command = fedfleet_command(verb, *common, *arguments, *state)
        self.programs[name] = Program(name, command, logs / f"{name}.log", self.shape.environment)

    def _is_online(self, name: str) -> bool:
        boot = self.boot(name)
        return boot is not None and boot > self._boots.get(name, -1)

    def boot(self, name: str) -> int | None:
        """Return the boot under which a program is online; None when it is not."""
        payload = self.watcher.newest().get(self.state_topic(name))
        if payload is None:
            return None
        if name == CENTRAL:
            state = json.loads(payload)
            return int(state["boot"]) if state["status"] == "online" else None
        body = GatewayState if name.startswith("gateway-") else DeviceState
        found = decode_frame(payload).body(body)
        return found.boot if found.status == "online" else None

    def state_topic(self, name: str) -> str:
        if name == CENTRAL:
            return _CENTRAL_STATE
        if name.startswith("gateway-"):
            return f"fl/v1/gw/{name.removeprefix('gateway-')}/up/state"
        return f"fl/v1/{self.shape.region_of(name)}/{name}/up/state"

    def _live_tasks(self) -> list[str]:
        return [task for task in self.tasks() if not is_final(self.statuses(task)[-1])]


def is_final(status: Status) -> bool:
    return status["state"] in FINAL_STATES


def _status_topic(task: str) -> str:
    return f"fl/v1/ctl/task/{task}/status"
