"""The hardware that the agent runs on, as psutil and the kernel tell it."""

import os
from pathlib import Path
from typing import Protocol

import psutil

from device_agent.service.ports import Vitals
from schemas.messages import Capabilities, Precision
from schemas.profiles import Limits

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_SUPPLIES = Path("/sys/class/power_supply")
_NO_LIMITS = Limits()
#: Page cache that a cgroup counts as used although the kernel drops it when memory is needed.
_RECLAIMABLE = "inactive_file"
#: Sensors that tell how hot the processor or its accelerator is; the hottest counts. Those of
#: Jetson boards are called ``-therm`` up to L4T 35 and ``-thermal`` since 36.
_SENSORS = frozenset(
    {
        *("coretemp", "k10temp", "cpu_thermal", "soc_thermal", "acpitz"),
        *("CPU-therm", "GPU-therm", "cpu-thermal", "gpu-thermal", "tj-thermal"),
    }
)


class OnnxProviders(Protocol):
    """What a trainer found to compute on."""

    @property
    def names(self) -> tuple[str, ...]:
        """Best first."""

    @property
    def fallback(self) -> str | None:
        """Why it is not all that was asked for."""

    @property
    def precision(self) -> Precision:
        """What the best one computes in."""

    @property
    def accelerator(self) -> str | None:
        """The best one, if it is not the CPU."""


class LocalMachine:
    """This machine; a limit of its control group (version 2) counts as its memory."""

    def __init__(
        self,
        backends: tuple[str, ...],
        onnx: OnnxProviders | None = None,
        cgroup: Path | None = None,
        limits: Limits = _NO_LIMITS,
    ) -> None:
        """Look at the machine.

        Args:
            backends: Names of the trainers that are installed.
            onnx: What the onnx trainer computes on and in, where there is one.
            cgroup: The control group's directory; None: this process's own.
            limits: What it may be burdened with.
        """
        self._cgroup = own_cgroup() if cgroup is None else cgroup
        self._capabilities = Capabilities(
            backends=backends,
            memory_bytes=min(
                (
                    int(psutil.virtual_memory().total),
                    *self._limits(),
                    *(() if limits.memory_bytes is None else (limits.memory_bytes,)),
                )
            ),
            cores=len(os.sched_getaffinity(0)),
            battery_percent=_battery()[0],
            limits=limits,
            accelerator=onnx.accelerator if onnx else None,
            providers=onnx.names if onnx else (),
            fallback=onnx.fallback if onnx else None,
            precision=onnx.precision if onnx else "float32",
        )

    def capabilities(self) -> Capabilities:
        """Return what this device can carry; constant while the agent runs."""
        return self._capabilities

    def vitals(self) -> Vitals:
        """Return load, free memory, temperature and battery now."""
        battery_percent, is_plugged = _battery()
        return Vitals(
            load=os.getloadavg()[0],
            memory_free_bytes=self.memory_free_bytes(),
            temperature_c=_temperature_c(),
            battery_percent=battery_percent,
            is_plugged=is_plugged,
        )

    def memory_free_bytes(self) -> int:
        """Return the memory that this process could still take, within its control group."""
        available = int(psutil.virtual_memory().available)
        limits = self._limits()
        used = self._number("memory.current")
        if not limits or used is None:
            return available
        reclaimable = _statistic(self._cgroup / "memory.stat", _RECLAIMABLE)
        return max(0, min(available, limits[0] - used + reclaimable))

    def _limits(self) -> tuple[int, ...]:
        limit = self._number("memory.max")
        return () if limit is None else (limit,)

    def _number(self, name: str) -> int | None:
        text = _read(self._cgroup / name)
        return int(text) if text.isdecimal() else None


def own_cgroup(root: Path = _CGROUP, told: Path = _OWN_CGROUP) -> Path:
    """Return the directory of this process's control group (cgroups(7), version 2).

    A container sees its own as the root. A service of systemd sees the whole machine's tree, and
    its limit lies further down.
    """
    for line in _read(told).splitlines():
        if line.startswith("0::/"):
            found = root / line[len("0::/") :]
            return found if (found / "memory.max").exists() else root
    return root


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _statistic(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0


def _battery() -> tuple[int | None, bool]:
    """Return how full the battery is, and whether it is known to be charged."""
    if not hasattr(psutil, "sensors_battery") or not _runs_on_battery(_SUPPLIES):
        return None, False
    battery = psutil.sensors_battery()
    if battery is None:
        return None, False
    percent = min(100, max(0, round(battery.percent)))
    return percent, getattr(battery, "power_plugged", None) is True


def _runs_on_battery(supplies: Path) -> bool:
    """Tell whether a battery drives the machine: that of a mouse or a pen has the scope Device.

    psutil takes any battery for the machine's (Documentation/ABI/testing/sysfs-class-power).
    """
    try:
        found = list(supplies.iterdir())
    except OSError:
        return False
    return any(
        _read(one / "type") == "Battery" and _read(one / "scope") != "Device" for one in found
    )


def _temperature_c() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    found = psutil.sensors_temperatures()
    known = [one.current for name in _SENSORS.intersection(found) for one in found[name]]
    if known:
        return float(max(known))
    return next((float(readings[0].current) for readings in found.values() if readings), None)
