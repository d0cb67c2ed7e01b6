"""Bounds on a process that reads what others wrote, and its end with the one that started it."""

import os
import resource
import threading
import time

from schemas.base import WireMessage

_LOOK_S = 0.5


class ProcessLimits(WireMessage):
    """What a process may take; the kernel enforces both.

    ``memory_bytes`` bounds the address space, ``cpu_s`` the CPU time.
    """

    memory_bytes: int
    cpu_s: int


def apply_limits(limits: ProcessLimits) -> None:
    """Bound this process; nothing lifts the bounds again."""
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


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
