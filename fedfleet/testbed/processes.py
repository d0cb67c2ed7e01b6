"""Starts, watches and stops the processes of a fleet; none is left behind, however it ends.

- Every child is the leader of its own process group, so a Ctrl-C reaches only this program,
  which then stops them in order; and is tethered to it, so a SIGKILL of it ends them too.
- ``stop`` runs at the end of the ``with`` block, after any error, and at exit.
- Start from the main thread: the tether is to the thread that started the child.
"""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from typing_extensions import Self

from fedfleet.errors import FleetError
from fedfleet.testbed import tether
from fedfleet.testbed.plan import Process

STOP_TIMEOUT_S = 8.0
_POLL_S = 0.02
_SHOWN_LOG_LINES = 15
_SHOWN_LOG_BYTES = 16384
_TERMINATED = 128 + signal.SIGTERM


class ProcessEndedError(FleetError):
    """A process of the fleet ended before it was told to.

    Attributes:
        name: Which one.
        returncode: As ``subprocess`` gives it; negative is a signal.
    """

    def __init__(self, name: str, returncode: int, log: Path, last_lines: str) -> None:
        how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        super().__init__(f"{name} ended with {how}; the last lines of {log}:\n{last_lines}")
        self.name = name
        self.returncode = returncode


@dataclass(frozen=True, slots=True)
class Running:
    """One started process and where its output goes."""

    name: str
    child: "subprocess.Popen[bytes]"
    log: Path


class Processes:
    """The processes of one run; a context manager that stops them all."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._running: dict[str, Running] = {}

    def __enter__(self) -> Self:
        """Make the folder for logs, and be sure to stop at exit."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop whatever still runs."""
        self.stop()
        atexit.unregister(self.stop)

    def start(self, process: Process) -> Running:
        """Start one process; its stdout and stderr go to ``NAME.log``.

        A program that cannot be run is a process that ended, for ``check`` to tell.
        """
        path = self._log_dir / f"{process.name}.log"
        with path.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603  (the plan's own command lines)
                _tethered(process.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **process.environment},
                start_new_session=True,
            )
        running = Running(process.name, child, path)
        self._running[process.name] = running
        return running

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one process and all that it started."""
        _signal(self._running[name], number)

    def kill(self, name: str) -> None:
        """End one process with SIGKILL; ``start`` may then start it again in its place."""
        self.send(name, signal.SIGKILL)
        self._running[name].child.wait()

    def check(self, down: Collection[str] = ()) -> None:
        """Look whether all still run.

        Args:
            down: Those that were killed, and are not expected to.

        Raises:
            ProcessEndedError: One does not.
        """
        for name, running in self._running.items():
            returncode = running.child.poll()
            if returncode is not None and name not in down:
                lines = last_lines(running.log)
                raise ProcessEndedError(running.name, returncode, running.log, lines)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End all: the last started first, the first one (the broker) when the others are gone.

        Args:
            timeout_s: For all together, before they are killed.
        """
        end = time.monotonic() + timeout_s
        with _deaf():
            running = list(self._running.values())
            _end(running[1:][::-1], end)
            _end(running[:1], end)
            self._running.clear()


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let a SIGTERM unwind the stack, as a Ctrl-C does, so that everything is stopped."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_lines(log: Path, count: int = _SHOWN_LOG_LINES) -> str:
    """Return the end of a log, indented; a note when it is empty."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _SHOWN_LOG_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()[-count:]
    except OSError as error:
        lines = [str(error)]
    return "\n".join(f"    {line}" for line in lines or ["(it wrote nothing)"])


def _tethered(argv: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *argv]


def _end(running: list[Running], end: float) -> None:
    for item in running:
        _signal(item, signal.SIGTERM)
    for item in running:
        _wait(item, end)
        # The group may outlive its leader.
        _signal(item, signal.SIGKILL)
        item.child.wait()


def _wait(item: Running, end: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        item.child.wait(max(_POLL_S, end - time.monotonic()))


def _signal(item: Running, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(item.child.pid, number)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore a second Ctrl-C while the children of the first one are being stopped."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
