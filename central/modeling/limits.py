"""Bounds on a process that reads what others wrote, and its end with the one that started it."""

import os
import resource
import threading
import time

from schemas.base import WireMessage

_LOOK_S = 0.5
_GRACE_S = 5


class ProcessLimits(WireMessage):
    """What a process may take; the kernel enforces both.

    ``memory_bytes`` bounds the address space, ``cpu_s`` the CPU time.
    """

    memory_bytes: int
    cpu_s: int


def apply_limits(limits: ProcessLimits) -> None:
    """Bound this process; nothing lifts the bounds again."""
    for kind, soft, hard in (
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        # Above the first the signal tells why, at the second the process is killed.
        (resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + _GRACE_S),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, most = resource.getrlimit(kind)
        bounds = (soft, hard)
        if most != resource.RLIM_INFINITY:
            bounds = (min(soft, most), min(hard, most))
        resource.setrlimit(kind, bounds)


def end_with(parent: int) -> None:
    """End this process soon after ``parent`` has ended, however that happens.

    Args:
        parent: Id of the process that started this one.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
