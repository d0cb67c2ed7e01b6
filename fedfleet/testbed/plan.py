"""What a fleet on one machine consists of: ids, folders, command lines, the task. Pure.

Every process is started by the same command that a person would type, so the plan is also a
list of commands to copy.
"""

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedfleet.testbed.choices import RECIPES, BrokerKind, Options
from schemas.ids import is_id

TASK = "demo"
_HOST = "127.0.0.1"
#: The embedded broker speaks 3.1.1 only; saying so spares every session a failed attempt.
_PROTOCOL: dict[BrokerKind, str] = {"embedded": "3.1.1", "mosquitto": "5"}
#: One thread a process: two OpenMP threads on a busy machine make a 3 ms step take 200 ms.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class PlanError(ValueError):
    """The options do not make a fleet; the text names the option, its value and the limit."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on this machine a run takes place.

    Attributes:
        folder: The run's folder; states and logs lie below it.
        port: A free port for the broker.
        mosquitto: The program's path, if that broker was chosen.
        is_root: Whether this is run by root.
        doors: Ports of proxies before the broker, by the name of the process that is to use it;
            ``NAME/uplink`` is a gateway's second session.
    """

    folder: Path
    port: int
    mosquitto: str | None = None
    is_root: bool = False
    doors: Mapping[str, int] = field(default_factory=dict)

    def url(self, name: str = "") -> str:
        """Return the broker's address, or that of the proxy before it for one process."""
        return f"mqtt://{_HOST}:{self.doors.get(name, self.port)}"

    @property
    def mosquitto_config(self) -> Path:
        """Where a Mosquitto's configuration is written."""
        return self.folder / "mosquitto.conf"

    @property
    def central_state_dir(self) -> Path:
        """Central's state directory."""
        return self.folder / "state" / "central"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the fleet.

    Attributes:
        name: Name of its log file.
        argv: Its command line.
        environment: Variables besides the ones inherited.
    """

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """One device: who it is, the arguments that give it its data, and what it trains with."""

    region: str
    device: str
    data_arguments: tuple[str, ...]
    backend: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole fleet.

    Attributes:
        url: Address of the broker.
        protocol: MQTT version that every session speaks.
        broker: Started first; the others need it.
        services: Central, then the gateways, then the devices.
        members: The devices.
        submission: The task, field by field.
    """

    url: str
    protocol: str
    broker: Process
    services: tuple[Process, ...]
    members: tuple[Member, ...]
    submission: dict[str, object]

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions, each once."""
        return tuple(dict.fromkeys(member.region for member in self.members))


def make_plan(options: Options, place: Place, files: Sequence[Path] = ()) -> Plan:
    """Return the fleet that ``options`` describe.

    Args:
        options: What a person chose.
        place: Where it runs.
        files: For data with one file a device, all the files there are.

    Raises:
        PlanError: The options contradict each other, or there are too few files.
    """
    _check(options)
    members, held_out = _deal(options, files)
    protocol = _PROTOCOL[options.broker]
    common = ("--mqtt-protocol", protocol)
    regions = tuple(dict.fromkeys(member.region for member in members))
    services = (
        _central(common, place, held_out),
        *(_gateway(common, place, region) for region in regions),
        *(_device(common, place, member) for member in members),
    )
    broker = _broker(place)
    return Plan(place.url(), protocol, broker, services, members, _submission(options))


def mosquitto_config(place: Place) -> str:
    """Return the configuration of a Mosquitto for one machine and one run.

    Started by root it would change its user, and so lose the order to end with its parent.
    """
    lines = [
        f"listener {place.port} {_HOST}",
        "allow_anonymous true",
        "persistence false",
        "max_packet_size 1048576",
        "max_queued_messages 2000",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        *(["user root"] if place.is_root else []),
    ]
    return "\n".join(lines) + "\n"


def _check(options: Options) -> None:
    if options.data not in RECIPES:
        message = f"data: {options.data!r} is not one of {', '.join(RECIPES)}"
        raise PlanError(message)
    if options.regions > options.devices:
        message = f"regions: {options.regions} is above devices: {options.devices}"
        raise PlanError(message)
    if options.needed > options.devices:
        message = f"min_clients: {options.needed} is above devices: {options.devices}"
        raise PlanError(message)


def _deal(options: Options, files: Sequence[Path]) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    if options.data == "har":
        return _deal_files(options, files)
    source = options.data if options.data_path is None else f"{options.data}={options.data_path}"
    members = []
    for index in range(options.devices):
        shard = ("--shard", f"{index + 1}/{options.devices}", "--alpha", f"{options.alpha:g}")
        arguments = ("--data", source, *shard, "--split-seed", str(options.seed))
        region, backend = _region(options, index), _backend(options, index)
        members.append(Member(region, f"device-{index + 1}", arguments, backend))
    return tuple(members), (source,)


def _deal_files(
    options: Options, files: Sequence[Path]
) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    ordered = sorted(files)
    if len(ordered) <= options.devices:
        message = (
            f"devices: {options.devices} leaves none of {len(ordered)} files to evaluate on; "
            f"at most {len(ordered) - 1} are possible"
        )
        raise PlanError(message)
    # A seeded choice of demo files, nothing secret.
    chosen = sorted(random.Random(options.seed).sample(ordered, options.devices))  # noqa: S311
    members = []
    for index, path in enumerate(chosen):
        name = path.stem.lower()
        device = name if is_id(name) else f"device-{index + 1}"
        arguments = ("--data", f"{options.data}={path}")
        region, backend = _region(options, index), _backend(options, index)
        members.append(Member(region, device, arguments, backend))
    held_out = (f"{options.data}={path}" for path in ordered if path not in chosen)
    return tuple(members), tuple(held_out)


def _region(options: Options, index: int) -> str:
    return f"region-{index % options.regions + 1}"


def _backend(options: Options, index: int) -> str:
    if options.backend != "mixed":
        return options.backend
    return ("onnx", "torch")[index // options.regions % 2]


def _fedfleet(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "fedfleet", *arguments)


def _state(place: Place, name: str) -> tuple[str, str]:
    return ("--state-dir", str(place.folder / "state" / name))


def _broker(place: Place) -> Process:
    if place.mosquitto is not None:
        return Process("broker", (place.mosquitto, "-c", str(place.mosquitto_config)))
    return Process("broker", _fedfleet("broker", "--host", _HOST, "--port", str(place.port)))


def _central(common: tuple[str, ...], place: Place, held_out: tuple[str, ...]) -> Process:
    data = (argument for item in held_out for argument in ("--eval-data", item))
    own = ("--broker", place.url("central"), "--state-dir", str(place.central_state_dir))
    return Process("central", _fedfleet("central", *own, *common, *data), _ENVIRONMENT)


def _gateway(common: tuple[str, ...], place: Place, region: str) -> Process:
    name = f"gateway-{region}"
    uplink = f"{name}/uplink"
    broker: tuple[str, ...] = ("--broker", place.url(name))
    if uplink in place.doors:
        broker += ("--uplink", place.url(uplink))
    argv = _fedfleet("gateway", *broker, *common, "--region", region, *_state(place, name))
    return Process(name, argv, _ENVIRONMENT)


def _device(common: tuple[str, ...], place: Place, member: Member) -> Process:
    who = ("--region", member.region, "--id", member.device, "--backend", member.backend)
    state = _state(place, member.device)
    broker = ("--broker", place.url(member.device))
    # A person's own machine: its battery and its heat are not to hold a simulated fleet up.
    profile = ("--profile", "generic")
    argv = _fedfleet("device", *broker, *common, *who, *profile, *member.data_arguments, *state)
    return Process(member.device, argv, _ENVIRONMENT)


def _submission(options: Options) -> dict[str, object]:
    recipe = options.recipe

    def chosen(name: str) -> object:
        value = getattr(options, name)
        return getattr(recipe, name) if value is None else value

    downlink = {"downlink": {"codec": options.downlink}} if options.downlink else {}
    return {
        "task": TASK,
        "model": chosen("model"),
        "data": options.data,
        "rounds": chosen("rounds"),
        "min_clients": options.needed,
        "cohort": options.devices,
        "codec": chosen("codec"),
        "codec_params": dict(options.codec_params),
        **downlink,
        "seed": options.seed,
        "training": {
            "epochs": chosen("epochs"),
            "batch_size": chosen("batch_size"),
            "learning_rate": chosen("learning_rate"),
            "seed": options.seed,
        },
    }
