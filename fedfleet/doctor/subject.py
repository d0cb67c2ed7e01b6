"""Whom the doctor examines: a program with its settings, and what it needs to work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """

    name: str
    url: str
    filters: tuple[str, ...]
    paths: ProbePaths


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
    """
    return _MAKERS[program](settings)


def _device(settings: ConnectionSettings) -> Subject:
    assert isinstance(settings, DeviceSettings)  # noqa: S101 - SETTINGS has it so
    quotas = settings.outbox_quota_bytes + settings.graph_cache_bytes
    link = Link(
        "broker",
        settings.broker,
        device_filters(settings.region, settings.id),
        probes.of_device(settings.region, settings.id),
    )
    wheels = _device_wheels(settings)
    needs_torch = any(wheel.name == "torch" for wheel in wheels)
    return Subject(
        program="device",
        settings=settings,
        wheels=wheels,
        providers=settings.providers,
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
            ),
            Link(
                "downlink", settings.broker, downlink_filters(region), probes.of_downlink(region)
            ),
        ),
    )


def _central(settings: ConnectionSettings) -> Subject:
    assert isinstance(settings, CentralSettings)  # noqa: S101 - SETTINGS has it so
    names = ("numpy", "safetensors", "onnx", "onnxscript", "onnxruntime", "torch")
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
        links=(Link("broker", settings.broker, central_filters(), probes.of_central()),),
    )


def _metrics(settings: ConnectionSettings, extra: str) -> tuple[Wheel, ...]:
    is_asked = getattr(settings, "metrics_port", None) is not None
    return (Wheel("prometheus_client", extra),) if is_asked else ()


_MAKERS: Mapping[Program, Callable[[ConnectionSettings], Subject]] = {
    "device": _device,
    "gateway": _gateway,
    "central": _central,
}
