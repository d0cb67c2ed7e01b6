"""Two network namespaces of a test's own, with a bad link between them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import netns_link

_TIMEOUT_S = 20.0
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


class BadLink:
    """The link and its two ends.

    Attributes:
        a: Name of one namespace, whose address is ``address``.
        b: Name of the other.
    """

    address = "10.98.0.1"

    def __init__(self, a: str, b: str, process: "subprocess.Popen[str]") -> None:
        self.a = a
        self.b = b
        self._process = process

    def set(self, way: str, **values: float) -> None:
        """Set one way, ``ab`` or ``ba``, or ``both``; see ``netns_link.Way``."""
        assert self._process.stdin is not None
        for name, value in values.items():
            self._process.stdin.write(f"{way} {name} {value}\n")
        self._process.stdin.flush()

    def close(self) -> dict[str, tuple[int, int]]:
        """End the link; return packets and drops of each way."""
        out, _ = self._process.communicate(timeout=_TIMEOUT_S)
        return {way: (counts[0], counts[1]) for way, counts in json.loads(out).items()}


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a command in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


@contextmanager
def bad_link(seed: int = 7) -> Iterator[BadLink]:
    """Make two namespaces and the link; all of it is gone at the end.

    The test is skipped, and says why, where this needs what is not there.
    """
    _skip_unless_possible()
    a, b = f"ff-a-{os.getpid()}", f"ff-b-{os.getpid()}"
    made = []
    process = None
    try:
        for name in (a, b):
            subprocess.run(("ip", "netns", "add", name), check=True)
            made.append(name)
            subprocess.run(("ip", "-n", name, "link", "set", "lo", "up"), check=True)
            _set_bbr(name)
        command = (netns_link.__file__, a, "10.98.0.1/24", b, "10.98.0.2/24", str(seed))
        process = subprocess.Popen(
            (sys.executable, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield BadLink(a, b, process)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.communicate(timeout=_TIMEOUT_S)
        for name in made:
            subprocess.run(("ip", "netns", "del", name), check=False)


def _skip_unless_possible() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    if not Path("/dev/net/tun").exists() or shutil.which("ip") is None:
        pytest.skip("needs /dev/net/tun and iproute2: a link between namespaces")
    if "bbr" not in _CONGESTION.read_text().split():
        pytest.skip("needs TCP BBR: with 15 % loss, others leave some 20 kB/s of the link")


def _set_bbr(namespace: str) -> None:
    path = "/proc/sys/net/ipv4/tcp_congestion_control"
    command = inside(namespace, ["sh", "-c", f"echo bbr > {path}"])
    subprocess.run(command, check=True)
