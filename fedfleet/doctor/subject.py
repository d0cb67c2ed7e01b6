"""Whom the doctor examines: a program with its settings, and what it needs to work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from central.settings import CentralSettings
from device_agent.settings import DeviceSettings
from fedfleet.doctor.finding import Status
from regional_gateway.settings import GatewaySettings
from schemas import probes
from schemas.limits import MIB
from schemas.probes import ProbePaths
from schemas.topics import central_filters, device_filters, downlink_filters, uplink_filters
from transport.settings import ConnectionSettings

Program = Literal["device", "gateway", "central"]
#: Of the setting ``id``: drawn at the first start and kept in the state directory.
_DRAWN = "auto"
PROGRAMS: tuple[Program, ...] = ("device", "gateway", "central")
SETTINGS: Mapping[str, type[ConnectionSettings]] = {
    "device": DeviceSettings,
    "gateway": GatewaySettings,
    "central": CentralSettings,
}


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that the program loads.

    Attributes:
        name: As it is imported.
        extra: The extra of this distribution that brings it.
        missing: What it means when it cannot be loaded.
    """

    name: str
    extra: str
    missing: Status = "failed"


@dataclass(frozen=True, slots=True)
class Link:
    """One session of the program.

    Attributes:
        name: As in the report: ``broker``, or a gateway's ``uplink``.
        url: The broker.
        filters: What the program subscribes to.
        paths: Where its rights are proved.
        password: From a file of its own; None leaves it to the URL.
    """

    name: str
    url: str
    filters: tuple[str, ...]
    paths: ProbePaths
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """One program, ready to be examined.

    Attributes:
        program: Which one.
        settings: As it would run with them.
        wheels: What it loads.
        providers: Execution providers that were asked for, best first.
        memory_bytes: What it takes to work at all.
        disk_bytes: What it may fill by its own quotas.
        links: Its sessions.
    """

    program: Program
    settings: ConnectionSettings
    wheels: tuple[Wheel, ...]
    providers: tuple[str, ...]
    memory_bytes: int
    disk_bytes: int
    links: tuple[Link, ...]

    @property
    def state_dir(self) -> Path:
        """Where its database and its objects lie."""
        return self.settings.state_dir

    @property
    def database(self) -> Path:
        """Its database."""
        return self.state_dir / f"{self.program}.db"


def subject_of(program: Program, settings: ConnectionSettings) -> Subject:
    """Return what is to be examined.

    Raises:
        WireError: An id among the settings is reserved.
        SettingsError: A password's file cannot be read.
    """
    return _MAKERS[program](settings)


def _device(settings: ConnectionSettings) -> Subject:
    assert isinstance(settings, DeviceSettings)  # noqa: S101 - SETTINGS has it so
    quotas = settings.outbox_quota_bytes + settings.graph_cache_bytes
    region, own_id = settings.region, _id_of(settings)
    paths = probes.of_device(region, own_id)
    filters = device_filters(region, own_id)
    link = Link("broker", settings.broker, filters, paths, _password(settings))
    wheels = _device_wheels(settings)
    needs_torch = any(wheel.name == "torch" for wheel in wheels)
    return Subject(
        program="device",
        settings=settings,
        wheels=wheels,
        providers=_providers(settings),
        memory_bytes=(400 if needs_torch else 120) * MIB,
        disk_bytes=quotas + settings.optimizer_state_bytes,
        links=(link,),
    )


def _device_wheels(settings: DeviceSettings) -> tuple[Wheel, ...]:
    common = (Wheel("numpy", "device"), Wheel("safetensors", "device"))
    if settings.backend == "torch":
        return (*common, Wheel("torch", "torch"))
    has_torch = settings.backend == "auto" and find_spec("torch") is not None
    return (*common, Wheel("onnxruntime", "device", "warning" if has_torch else "failed"))


def _providers(settings: DeviceSettings) -> tuple[str, ...]:
    """Return what the device computes on, best first: the owner's word, else its profile's."""
    if "providers" in settings.model_fields_set:
        return settings.providers
    try:
        choice = import_module("device_agent.adapters.profile_choice")
        found: tuple[str, ...] = choice.choose_profile(settings.profile).profile.providers
    except (ImportError, ValueError):
        return settings.providers  # the check of the profile says why
    return found


def _gateway(settings: ConnectionSettings) -> Subject:
    assert isinstance(settings, GatewaySettings)  # noqa: S101 - SETTINGS has it so
    region = settings.region
    return Subject(
        program="gateway",
        settings=settings,
        wheels=(Wheel("numpy", "gateway"), *_metrics(settings, "gateway")),
        providers=(),
        memory_bytes=64 * MIB,
        disk_bytes=settings.custody_quota_bytes + settings.cache_bytes,
        links=(
            Link(
                "uplink",
                settings.uplink_url,
                uplink_filters(region),
                probes.of_uplink(region),
                _password(settings, "uplink_password"),
            ),
            Link(
                "downlink",
                settings.broker,
                downlink_filters(region),
                probes.of_downlink(region),
                _password(settings),
            ),
        ),
    )


def _central(settings: ConnectionSettings) -> Subject:
    assert isinstance(settings, CentralSettings)  # noqa: S101 - SETTINGS has it so
    names = ("numpy", "safetensors", "onnx", "onnxscript", "onnxruntime", "torch")
    paths, password = probes.of_central(), _password(settings)
    link = Link("broker", settings.broker, central_filters(), paths, password)
    fast = (Wheel("numba", "fast"),) if settings.compiled_sums else ()
    return Subject(
        program="central",
        settings=settings,
        wheels=(
            *(Wheel(name, "central") for name in names),
            *fast,
            *_metrics(settings, "central"),
        ),
        providers=(),
        memory_bytes=700 * MIB,
        disk_bytes=2048 * MIB,
        links=(link,),
    )


def _id_of(settings: DeviceSettings) -> str:
    """Return the device's id; one that it draws at its first start is stood in for until then."""
    if settings.id != _DRAWN:
        return settings.id
    try:
        kept = (settings.state_dir / "device-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "not-yet-drawn"
    return kept


def _password(settings: ConnectionSettings, name: str = "password") -> str | None:
    found = getattr(settings, name, None)
    return None if found is None else str(found)


def _metrics(settings: ConnectionSettings, extra: str) -> tuple[Wheel, ...]:
    is_asked = getattr(settings, "metrics_port", None) is not None
    return (Wheel("prometheus_client", extra),) if is_asked else ()


_MAKERS: Mapping[Program, Callable[[ConnectionSettings], Subject]] = {
    "device": _device,
    "gateway": _gateway,
    "central": _central,
}
