"""What a machine's own files tell of it: device tree, Jetson Linux, processor, memory.

A container sees its host's memory. It sees neither ``/etc/nv_tegra_release`` nor, as container
engines mask ``/sys/firmware``, the device tree, to which ``/proc/device-tree`` is but a link.
"""

import os
import re
from pathlib import Path

from device_agent.core.detection import Seen

_ROOT = Path("/")
_MODELS = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")
_COMPATIBLE = ("proc/device-tree/compatible", "sys/firmware/devicetree/base/compatible")
#: ``# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ...``
_L4T = re.compile(r"^# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)?)", re.MULTILINE)
_MEMORY = re.compile(r"^MemTotal: +(\d+) kB$", re.MULTILINE)
_PROCESSOR = re.compile(r"^processor\s*:", re.MULTILINE)
_ARCHITECTURE = "proc/sys/kernel/arch"
_CPU_ARCHITECTURE = re.compile(r"^(?:CPU architecture: (\d+)|flags\t\t: .*\b(lm)\b)", re.MULTILINE)
#: What ``/proc/cpuinfo`` says of a processor -> ``uname -m`` of a 64-bit kernel on it.
_ARCHITECTURES = {"7": "armv7l", "8": "aarch64", "lm": "x86_64"}
_UNKNOWN = "unknown"
_MOST_BYTES = 1 << 20


def read_machine(root: Path = _ROOT) -> Seen:
    """Return what is told under a root directory; what is missing is not known.

    Args:
        root: This machine's, or where another one's files were copied to.
    """
    l4t = _L4T.search(_text(root, "etc/nv_tegra_release"))
    memory = _MEMORY.search(_text(root, "proc/meminfo"))
    return Seen(
        architecture=_architecture(root),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        model=next(iter(_strings(root, _MODELS)), None),
        compatible=_strings(root, _COMPATIBLE),
        l4t=f"{l4t[1]}.{l4t[2]}" if l4t else None,
        cores=len(_PROCESSOR.findall(_text(root, "proc/cpuinfo"))),
    )


def _architecture(root: Path) -> str:
    """Return ``uname -m``: the kernel shows it as a file since 6.1, before by a call alone.

    Another machine's, which cannot be called, has its processor's.
    """
    if told := _text(root, _ARCHITECTURE).strip():
        return told
    if root == _ROOT:
        return os.uname().machine
    processor = _CPU_ARCHITECTURE.search(_text(root, "proc/cpuinfo"))
    return _ARCHITECTURES.get(processor[1] or processor[2], _UNKNOWN) if processor else _UNKNOWN


def _strings(root: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the strings of a device tree's property, each of which ends with a zero byte."""
    text = next((text for name in names if (text := _text(root, name))), "")
    return tuple(part.strip() for part in text.split("\0") if part.strip())


def _text(root: Path, name: str) -> str:
    try:
        with (root / name).open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
