"""Runs inside the container, in place of the device and in its sandbox: tries what is forbidden.

One line ``NAME allowed`` or ``NAME denied: WHY`` for each attempt. Python's standard library only.
"""

import ctypes
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

_NEW_USER_NAMESPACE = 0x10000000
_SET_UID_MODE = 0o4755
_STATE = Path("/var/lib/fedfleet-device")


def _write(path: str) -> Callable[[], object]:
    return lambda: Path(path, "probe").write_text("x")


def _call(name: str, *arguments: int) -> Callable[[], object]:
    def call() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if getattr(library, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return call


def _make_set_uid() -> None:
    path = _STATE / "probe-set-uid"
    path.write_text("x")
    try:
        path.chmod(_SET_UID_MODE)
    finally:
        path.unlink()


def _map_writable_code() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "write-state": _write(str(_STATE)),
    "read-settings": lambda: Path("/etc/fedfleet/device.toml").read_text(),
    "internet-socket": lambda: socket.socket(socket.AF_INET).close(),
    "write-etc": _write("/etc"),
    "write-opt": _write("/opt/fedfleet"),
    "write-usr": _write("/usr"),
    "write-home": _write("/root"),
    "read-shadow": lambda: Path("/etc/shadow").read_text(),
    "read-credentials": lambda: Path(
        "/etc/fedfleet/credentials/device/broker-password"
    ).read_text(),
    "packet-socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "new-namespace": _call("unshare", _NEW_USER_NAMESPACE),
    "set-uid-file": _make_set_uid,
    "become-root": lambda: os.setuid(0),
    "writable-code": _map_writable_code,
    "other-devices": lambda: Path("/dev/console").open("rb").close(),
    "kernel-settings": lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
    "see-others": lambda: Path("/proc/1/status").read_text(),
}
ALLOWED = ("write-state", "read-settings", "internet-socket")


def outcome(attempt: Callable[[], object]) -> str:
    """Return how one attempt went."""
    try:
        attempt()
    except (OSError, ValueError) as error:
        return f"denied: {type(error).__name__}: {error}"
    return "allowed"


if __name__ == "__main__":
    for title, tried in ATTEMPTS.items():
        sys.stdout.write(f"{title} {outcome(tried)}\n")
