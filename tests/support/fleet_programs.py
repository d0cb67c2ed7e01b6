"""Real processes for tests: each by its own command, in a group of its own, killed at the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from fedfleet.testbed import tether
from tests.support.brokers import REPOSITORY

STOP_S = 20.0
_TAIL_LINES = 12
#: What a test's outcome must not depend on.
_INHERITED = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("FEDFLEET_") and name != "MIN_CLIENTS"
}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _common() -> dict[str, str]:
    """Return what every program gets; central's exported models are shared by a run's tests."""
    name = "FEDFLEET_MODEL_CACHE"
    shared = {name: os.environ[name]} if name in os.environ else {}
    return {**_INHERITED, **_ONE_THREAD, **shared}


def fedfleet_command(*arguments: str) -> list[str]:
    """Return the command line of one verb, as a person would type it."""
    return [sys.executable, "-m", "fedfleet", *arguments]


def run_verb(
    *arguments: str, within_s: float = 60.0, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a verb that ends by itself; its output is text."""
    return subprocess.run(
        fedfleet_command(*arguments),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
        cwd=REPOSITORY,
        env={**_common(), **environment},
    )


class Program:
    """One process that can be killed and started again; its output is collected in one log.

    It is tethered to this process: should the tests themselves be killed, it goes with them.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self._log_path = log_path
        self.environment = {**_common(), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._is_frozen = False

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def tail(self) -> str:
        """The end of the log, under the program's name and state."""
        state = "running" if self.is_running else f"exit code {self.returncode}"
        lines = self.log.splitlines()[-_TAIL_LINES:]
        return "\n".join([f"--- {self.name} ({state})", *lines])

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def maps(self) -> str:
        """What the process has mapped: its libraries among others."""
        return Path(f"/proc/{self.pid}/maps").read_text()

    def start(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        tethered = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self.command]
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                tethered,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env=self.environment,
                start_new_session=True,
            )
        self._is_frozen = False

    def signal(self, number: int) -> None:
        if self.is_running:
            os.killpg(self.pid, number)

    def freeze(self) -> None:
        """Stop it in its tracks: it does nothing, and its connection stays."""
        self.signal(signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        if self._is_frozen:
            self.signal(signal.SIGCONT)
            self._is_frozen = False

    def kill(self) -> None:
        """End the process with SIGKILL, and all that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_S)

    def stop(self) -> int:
        """Ask the process to end with SIGTERM; return its exit code."""
        self.thaw()
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, within_s: float = STOP_S) -> int:
        """Return the exit code once the process has ended by itself."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.wait(within_s)

    @property
    def returncode(self) -> int | None:
        """As ``subprocess`` gives it; None while the process runs."""
        return None if self._process is None else self._process.poll()
