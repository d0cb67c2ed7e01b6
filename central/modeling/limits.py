"""Bounds on a process that reads what others wrote, and its end with the one that started it."""

import os
import resource
import threading
import time

from schemas.base import WireMessage

_LOOK_S = 0.5


class ProcessLimits(WireMessage):
    """What a process may take; the kernel enforces both.

    ``memory_bytes`` bounds the address space, ``cpu_s`` the CPU time until the file has passed its
    gates: what is done with it afterwards takes as long as it takes.
    """

    memory_bytes: int
    cpu_s: int


def apply_limits(limits: ProcessLimits) -> None:
    """Bound this process; only ``lift_cpu_limit`` lifts a bound again."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    _bound(resource.RLIMIT_CPU, limits.cpu_s, most)  # its signal ends the process and tells why
    _bound(resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes)
    _bound(resource.RLIMIT_CORE, 0, 0)


def lift_cpu_limit() -> None:
    """Let this process take the CPU time that it was started with."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))


def _bound(kind: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft = min(soft, most)
        hard = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(kind, (soft, hard))


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
