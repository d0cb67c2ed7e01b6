"""``health.json``: what a program last said of itself, in its state directory.

Probes read it: Docker's HEALTHCHECK, Kubernetes' exec probes, ``fedfleet upgrade``. It loads
next to nothing, so that a probe costs little.
"""

import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

HEALTH_FILE = "health.json"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Status = Literal["starting", "ready", "disconnected", "stopping"]


class HealthError(Exception):
    """There is no report of a program's health, or it cannot be read."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a program is.

    Attributes:
        status: ``starting`` until every session was connected for the first time.
        connected: Names of the sessions that are connected and subscribed, sorted.
        ts: When it was written, unix seconds by the machine's clock.
        pid: The program's process id.
    """

    status: Status
    connected: tuple[str, ...]
    ts: float
    pid: int


def write_health(state_dir: Path, health: Health) -> None:
    """Replace the report in one step; a reader sees the old one or the new one.

    On a full disk the old report stays, which soon says no longer that the program is ready; its
    modification time is set all the same, since the program turns and need not be killed.

    Raises:
        OSError: It cannot be written.
    """
    path, fresh = state_dir / HEALTH_FILE, state_dir / f".{HEALTH_FILE}.new"
    text = json.dumps(asdict(health)) + "\n"
    try:
        fresh.write_text(text, encoding="ascii")
    except OSError as error:
        if error.errno not in _FULL or not path.exists():
            raise
        os.utime(path)
        return
    os.replace(fresh, path)  # noqa: PTH105 - the same, without a new Path


def read_health(state_dir: Path) -> Health:
    """Return the report in a state directory.

    Raises:
        HealthError: There is none, or it is not one.
    """
    path = state_dir / HEALTH_FILE
    try:
        found = json.loads(path.read_text(encoding="ascii"))
        connected = tuple(str(name) for name in found["connected"])
        return Health(found["status"], connected, float(found["ts"]), int(found["pid"]))
    except FileNotFoundError as error:
        message = f"{path} is not there: no program has run on this state directory"
        raise HealthError(message) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} cannot be read: {error}"
        raise HealthError(message) from error


def problem(health: Health, now_s: float, max_age_s: float) -> str | None:
    """Return what keeps a program from being ready, in a sentence, or None.

    Args:
        health: Its report.
        now_s: Unix seconds by the machine's clock.
        max_age_s: Oldest report that counts; one from the future counts as little.
    """
    age_s = now_s - health.ts
    if abs(age_s) > max_age_s:
        return (
            f"the last word of process {health.pid} is {age_s:.0f} s old, more than "
            f"{max_age_s:.0f} s: it hangs or has ended"
        )
    if health.status != "ready":
        sessions = ", ".join(health.connected) or "none"
        return f"process {health.pid} is {health.status}; sessions connected: {sessions}"
    return None
