"""Memory, and room on the disk where the state lies."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.subject import Subject
from fedfleet.tables import size
from schemas.limits import MIB

#: SQLite and one small update need so much.
_LEAST_DISK_BYTES = 32 * MIB
#: Below this share of the disk, a neighbour can fill it at any moment.
_LEAST_SHARE = 0.02
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system.

    Attributes:
        path: What of it was looked at.
        free_bytes: What a program may still write.
        total_bytes: Its size.
        free_files: How many files may still be made; None where it does not count them.
    """

    path: Path
    free_bytes: int
    total_bytes: int
    free_files: int | None


def examine_memory(subject: Subject) -> list[Finding]:
    """Look at the machine's memory, or at that of its control group."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit = _limit()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    return [judge_memory(subject.program, subject.memory_bytes, total, free)]


def judge_memory(program: str, needed: int, total: int, free: int) -> Finding:
    """Tell whether a program that takes ``needed`` bytes can work."""
    seen = f"{size(free)} of {size(total)} free; {program} takes {size(needed)} and more"
    if total < needed:
        advice = "it needs a larger machine or a higher limit of its container or unit"
        if program == "device":
            advice += "; with backend = 'onnx' a device takes the least"
        return failed("memory", seen, advice)
    if free < needed:
        advice = "stop what else runs here, or add swap: the kernel may kill the program"
        return failed("memory", seen, advice)
    if free < 2 * needed:
        advice = "large models will not fit: free memory, or set min_free_memory_mb in the policy"
        return warning("memory", seen, advice)
    return ok("memory", seen)


def examine_disk(subject: Subject) -> list[Finding]:
    """Look at the file system under the state directory."""
    place = subject.state_dir.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError as error:
        advice = "mount it, or name another state_dir"
        return [failed("disk", f"{place}: {error.strerror}", advice)]
    disk = Disk(
        place,
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail if found.f_files else None,
    )
    return [judge_disk(disk, subject.disk_bytes)]


def judge_disk(disk: Disk, wanted: int) -> Finding:
    """Tell whether there is room for the state.

    Args:
        disk: Where it lies.
        wanted: What the program's quotas allow it to take.
    """
    seen = f"{size(disk.free_bytes)} of {size(disk.total_bytes)} free at {disk.path}"
    if disk.free_bytes < _LEAST_DISK_BYTES:
        advice = "the disk is full: free space, or put state_dir on another disk"
        return failed("disk", seen, advice)
    if disk.free_files == 0:
        advice = "no more files can be made there: remove some, or put state_dir elsewhere"
        return failed("disk", f"{seen}, no inode left", advice)
    if disk.free_bytes < max(wanted, _LEAST_SHARE * disk.total_bytes):
        advice = f"its quotas add up to {size(wanted)}: free space, or set lower quotas"
        return warning("disk", seen, advice)
    return ok("disk", seen)


def _limit() -> int | None:
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            return int(text)
    return None
