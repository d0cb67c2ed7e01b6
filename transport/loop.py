"""The one loop of every program: events in, one transaction, messages out.

All events that have arrived together are handled in one transaction (group commit: one fsync).
Only after it has committed are messages published and arrivals acknowledged, so a crash at any
point leaves either all of it or nothing.
"""

import queue
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from transport.events import Outgoing, Session


class SessionDeadError(Exception):
    """A session's thread has ended; the program must be restarted.

    Attributes:
        name: The session.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"session {name!r}: its thread has ended")
        self.name = name


class Handler(Protocol):
    """What a program does with its events.

    ``handle`` and ``tick`` run inside the loop's transaction, on its thread; they write through
    the loop's connection and return what to publish. What they wrote may still be undone: when
    they raise, or when the commit fails, in which case the same event is handled again. So an
    event must have the same effect when it is handled twice, and work that cannot be undone
    begins in ``after_commit``.
    """

    def handle(self, event: object, now_s: float) -> Iterable[Outgoing]:
        """Handle one event: a ``SessionEvent``, or whatever a worker has put on the queue.

        Raises:
            WireError: The event breaks the contract; its writes are undone, it is acknowledged.
        """

    def tick(self, now_s: float) -> Iterable[Outgoing]:
        """Do what is due; called when ``next_due_s`` has come, and at least every second."""

    def next_due_s(self, now_s: float) -> float | None:
        """Return when ``tick`` is needed next, on the loop's clock; None: nothing is planned."""

    def after_commit(self) -> None:
        """Begin background work that must not begin before the commit."""


def steady_clock() -> Callable[[], float]:
    """Return a clock of unix seconds that never jumps while the program runs."""
    offset_s = time.time() - time.monotonic()
    return lambda: offset_s + time.monotonic()


class ServiceLoop:
    """Runs a handler on the events of its sessions; the caller starts and stops the sessions.

    Attributes:
        counts: What happened since the start: ``handled``, ``refused`` (and ``refused:CODE``),
            ``failed``, ``dropped``, ``storage_failures``.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by the composition root
        self,
        connection: sqlite3.Connection,
        events: "queue.SimpleQueue[object]",
        sessions: Mapping[str, Session],
        handler: Handler,
        clock: Callable[[], float] | None = None,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare the loop; nothing happens before ``run``.

        Args:
            connection: The program's database; only this loop's thread may use it from now on.
            events: Filled by the sessions and by the program's workers.
            sessions: By the name that ``Outgoing.session`` uses.
            handler: The program.
            clock: Unix seconds; default ``steady_clock()``.
            pause: Waits while the disk is full.
        """
        self.counts: Counter[str] = Counter()
        self._connection = connection
        self._events = events
        self._sessions = sessions
        self._handler = handler
        self._clock = clock or steady_clock()
        self._pause = pause

    def run(self) -> None:
        """Handle events until ``stop``.

        Raises:
            SessionDeadError: A session's thread has ended.
        """
        raise NotImplementedError

    def turn(self) -> None:
        """Wait for events, handle them all, commit, publish, acknowledge: once."""
        raise NotImplementedError

    def stop(self) -> None:
        """Make ``run`` return after the turn in progress; may be called in a signal handler."""
        raise NotImplementedError
