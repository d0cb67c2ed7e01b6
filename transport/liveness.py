"""Signs of life of a program, given by its work loop and by nothing else.

The service manager (``transport.notify``) and ``health.json`` (``transport.health_file``) are told
from the loop's own turns. A loop that hangs falls silent, is killed by the watchdog and started
again; a thread of its own would go on saying that all is well.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog
from typing_extensions import Self

from transport.events import Connected, Disconnected, Session
from transport.health_file import Health, Status, write_health
from transport.log_gate import LogGate
from transport.notify import NotifySocket

#: ``health.json`` is written anew at least so often.
REPORT_INTERVAL_S = 5.0
#: While it is not ready, the loop asks for so much more time to start, again and again.
START_EXTENSION_S = 60
_US = 1_000_000

_log = structlog.get_logger()


class Liveness:
    """Tells whoever watches a program that its loop turns and which sessions are connected.

    A session is connected once the broker has granted its filters, and until it is lost. A
    program is ready when all of its sessions are.
    """

    def __init__(
        self,
        state_dir: Path,
        notify: NotifySocket,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Say that the program is starting; it must own the state directory.

        Args:
            state_dir: Where ``health.json`` goes.
            notify: The service manager.
            clock: Seconds that never jump.
            wall_clock: Unix seconds, as other processes of this machine have them.
        """
        self._state_dir = state_dir
        self._notify = notify
        self._clock = clock
        self._wall_clock = wall_clock
        self._gate = LogGate()
        self._subscribed: set[str] = set()
        self._status: Status = "starting"
        self._connected: tuple[str, ...] = ()
        self._is_ready_told = False
        self._written: tuple[Status, tuple[str, ...]] | None = None
        self._told: tuple[Status, tuple[str, ...]] | None = None
        self._beat_s = self._written_s = self._told_s = float("-inf")
        self.progressed()

    @classmethod
    def of_process(cls, state_dir: Path) -> Self:
        """Return the liveness of this process, as its environment says who watches it."""
        return cls(state_dir, NotifySocket.of_environment(os.environ, os.getpid()))

    def turned(self, events: Iterable[object], sessions: Mapping[str, Session]) -> None:
        """Note that the loop has begun a turn.

        Args:
            events: What it is about to handle.
            sessions: All of the program's, by name.
        """
        for event in events:
            if isinstance(event, Connected):
                self._subscribed.add(event.session)
            elif isinstance(event, Disconnected):
                self._subscribed.discard(event.session)
        self._subscribed &= {name for name, session in sessions.items() if session.is_connected}
        self._connected = tuple(sorted(self._subscribed))
        if len(self._connected) == len(sessions):
            self._status = "ready"
        elif self._status == "ready":
            self._status = "disconnected"
        self.progressed()

    def progressed(self) -> None:
        """Note that the loop gets on within a turn; cheap, tells something only when it is due."""
        now_s = self._clock()
        state = (self._status, self._connected)
        if state != self._written or now_s - self._written_s >= REPORT_INTERVAL_S:
            self._write(now_s)
        is_due = not self._is_ready_told and now_s - self._told_s >= REPORT_INTERVAL_S
        if state != self._told or is_due:
            self._tell_manager(now_s)
        if self._is_ready_told:
            self._feed_watchdog(now_s)

    def stopping(self) -> None:
        """Note that the loop has ended and the program is about to."""
        self._status, self._connected = "stopping", ()
        self.progressed()

    def _write(self, now_s: float) -> None:
        self._written, self._written_s = (self._status, self._connected), now_s
        health = Health(self._status, self._connected, self._wall_clock(), os.getpid())
        try:
            write_health(self._state_dir, health)
        except OSError as error:
            if self._gate.admit("health_not_written", now_s) is not None:
                _log.warning("health_not_written", error=str(error))

    def _tell_manager(self, now_s: float) -> None:
        words: dict[str, str | int] = {"STATUS": self._sentence()}
        if self._status == "stopping":
            words["STOPPING"] = 1
        elif self._status == "ready":
            words["READY"] = 1
        elif not self._is_ready_told:
            words["EXTEND_TIMEOUT_USEC"] = START_EXTENSION_S * _US
        if self._notify.send(**words):
            self._told, self._told_s = (self._status, self._connected), now_s
            self._is_ready_told = self._is_ready_told or self._status == "ready"

    def _feed_watchdog(self, now_s: float) -> None:
        watchdog_s = self._notify.watchdog_s
        is_due = watchdog_s is not None and now_s - self._beat_s >= watchdog_s / 2
        if is_due and self._notify.send(WATCHDOG=1):
            self._beat_s = now_s

    def _sentence(self) -> str:
        sessions = ", ".join(self._connected) or "none"
        return f"{self._status}; sessions connected: {sessions}"
