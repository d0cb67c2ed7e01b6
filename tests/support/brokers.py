"""Brokers for tests: Mosquitto and the embedded one as processes, and the one in memory.

Each context manager yields a running broker with ``url``; ``kill`` ends it the hard way and
``restart`` brings it back on the same port.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import numpy as np
import pytest

from transport.memory import MemoryBroker

HOST = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
_START_S = 30.0
_MOSQUITTO_PLACES = ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto")
_EMBEDDED = """
import sys
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from transport.embedded import run
run(int(sys.argv[1]), lambda port: print("READY", port, flush=True))
"""


class ProcessBroker:
    """A broker in a process of its own.

    Attributes:
        port: Where it listens; the same after every restart.
    """

    def __init__(self, command: Callable[[], list[str]], port: int, log_path: Path) -> None:
        self.port = port
        self._command = command
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd=REPOSITORY
            )
        wait_until_listening(self.port, self._process, self._log_path)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._end(subprocess.Popen.kill)

    def stop(self) -> None:
        """End the process with SIGTERM."""
        self._end(subprocess.Popen.terminate)

    def restart(self) -> None:
        """Kill the broker and start it again on the same port."""
        self.kill()
        self.start()

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        if self._process is not None:
            how(self._process)
            self._process.wait(timeout=_START_S)
            self._process = None


@contextlib.contextmanager
def mosquitto_broker(
    *, persistence: bool = False, port: int | None = None, extra: str = ""
) -> Iterator[ProcessBroker]:
    """Run Mosquitto on loopback with the limits that ``deploy`` gives it.

    Args:
        persistence: Whether it keeps sessions and retained messages over a restart.
        port: None for any free one.
        extra: Further lines of its configuration.
    """
    binary = find_mosquitto()
    with TemporaryDirectory(prefix="fedfleet-mosquitto-") as folder:
        chosen = port or free_port()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(_mosquitto_config(chosen, Path(folder), persistence) + extra)
        broker = ProcessBroker(
            lambda: [binary, "-c", str(config)], chosen, Path(folder) / "mosquitto.log"
        )
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


@contextlib.contextmanager
def embedded_broker(*, port: int | None = None) -> Iterator[ProcessBroker]:
    """Run the embedded broker in a process of its own."""
    with TemporaryDirectory(prefix="fedfleet-embedded-") as folder:
        chosen = port or free_port()
        command = [sys.executable, "-c", _EMBEDDED, str(chosen)]
        broker = ProcessBroker(lambda: command, chosen, Path(folder) / "broker.log")
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


@contextlib.contextmanager
def memory_broker(seed: int = 1, **faults: float) -> Iterator[MemoryBroker]:
    """Yield a broker in memory that nobody pumps yet."""
    yield MemoryBroker(np.random.default_rng(seed), **faults)


def find_mosquitto() -> str:
    """Return Mosquitto's path; a test that needs it fails without it."""
    found = shutil.which("mosquitto")
    for place in _MOSQUITTO_PLACES:
        if found is None and Path(place).is_file():
            found = place
    if found is None:
        _fail_without_mosquitto()
    return found


def _fail_without_mosquitto() -> NoReturn:
    pytest.fail("mosquitto is not installed; these tests need it: apt-get install mosquitto")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(
    port: int, process: "subprocess.Popen[bytes]", log_path: Path, within_s: float = _START_S
) -> None:
    """Return when a process accepts connections; fail with its log when it does not."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return
        time.sleep(0.02)
    process.kill()
    process.wait(timeout=_START_S)
    pytest.fail(f"no broker on port {port}: {log_path.read_text(errors='replace')[-2000:]}")


def _mosquitto_config(port: int, folder: Path, persistence: bool) -> str:
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "message_size_limit 1048576",
        "max_packet_size 1048576",
        "max_inflight_messages 20",
        "max_queued_messages 1000",
        f"persistence {'true' if persistence else 'false'}",
    ]
    if persistence:
        lines += [
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "autosave_on_changes true",
            "user root",
        ]
    return "\n".join(lines) + "\n"
