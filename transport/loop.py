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

import structlog

from schemas.errors import WireError
from transport.backlog import Backlog, Item
from transport.database import is_damage, is_storage_failure, savepoint, transaction
from transport.events import MessageArrived, Outgoing, Session
from transport.failpoints import failpoint
from transport.log_gate import LogGate

_MAX_WAIT_S = 1.0
#: Between two ticks at least, so that a handler that is always due cannot spin.
_MIN_WAIT_S = 0.01
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 2.0

_log = structlog.get_logger()


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
        self._backlog = Backlog(events)
        self._sessions = sessions
        self._handler = handler
        self._clock = clock or steady_clock()
        self._pause = pause
        self._gate = LogGate()
        self._stopping = False
        self._ticked_s = float("-inf")
        self._pauses = 0

    def run(self) -> None:
        """Handle events until ``stop``.

        Raises:
            SessionDeadError: A session's thread has ended.
            sqlite3.DatabaseError: The database is damaged.
        """
        while not self._stopping:
            self.turn()

    def turn(self) -> None:
        """Wait for events, handle them all, commit, publish, acknowledge: once.

        Raises:
            SessionDeadError: A session's thread has ended.
        """
        for name, session in self._sessions.items():
            if not session.is_alive:
                raise SessionDeadError(name)
        now_s = self._clock()
        batch = self._backlog.gather(now_s, self._wait_s(now_s))
        failpoint("transport.batch.gathered")
        try:
            done, failed, outgoing = self._commit(batch)
        except Exception as error:
            if not is_storage_failure(error):
                raise
            self._wait_for_storage(batch, error)
            return
        failpoint("transport.turn.committed")
        self._after_commit(done, failed, outgoing)

    def stop(self) -> None:
        """Make ``run`` return after the turn in progress; may be called in a signal handler."""
        self._stopping = True
        self._backlog.wake()

    def _wait_s(self, now_s: float) -> float:
        return min(_MAX_WAIT_S, max(_MIN_WAIT_S, self._tick_due_s(now_s) - now_s))

    def _tick_due_s(self, now_s: float) -> float:
        latest_s = self._ticked_s + _MAX_WAIT_S
        try:
            planned_s = self._handler.next_due_s(now_s)
        except Exception as error:  # noqa: BLE001 - the loop outlives any fault of its handler
            self._log_failure("next_due_failed", error, now_s)
            return latest_s
        return latest_s if planned_s is None else min(latest_s, planned_s)

    def _commit(self, batch: list[Item]) -> tuple[list[Item], list[Item], list[Outgoing]]:
        """Handle a batch in one transaction; return what was done, what failed, what to send."""
        now_s = self._clock()
        done: list[Item] = []
        failed: list[Item] = []
        outgoing: list[Outgoing] = []
        with transaction(self._connection):
            for item in batch:
                handled = self._handle(item, now_s, outgoing)
                failpoint("transport.event.handled")
                (done if handled else failed).append(item)
            if self._tick_due_s(now_s) <= now_s:
                self._tick(now_s, outgoing)
            failpoint("transport.turn.handled")
        return done, failed, outgoing

    def _handle(self, item: Item, now_s: float, outgoing: list[Outgoing]) -> bool:
        try:
            with savepoint(self._connection):
                outgoing.extend(list(self._handler.handle(item.event, now_s)))
        except WireError as error:
            self._refuse(item, error, now_s)
        except Exception as error:
            if is_storage_failure(error) or is_damage(error):
                raise
            self._log_failure("event_failed", error, now_s, **_about(item.event))
            return False
        return True

    def _tick(self, now_s: float, outgoing: list[Outgoing]) -> None:
        self._ticked_s = now_s
        try:
            with savepoint(self._connection):
                outgoing.extend(list(self._handler.tick(now_s)))
        except Exception as error:
            if is_storage_failure(error) or is_damage(error):
                raise
            self._log_failure("tick_failed", error, now_s)

    def _after_commit(
        self, done: list[Item], failed: list[Item], outgoing: list[Outgoing]
    ) -> None:
        now_s = self._clock()
        if self._pauses:
            _log.info("storage_recovered", after_pauses=self._pauses)
            self._pauses = 0
        for message in outgoing:
            failpoint("transport.publish.before")
            self._publish(message, now_s)
            failpoint("transport.publish.after")
        failpoint("transport.turn.published")
        self.counts["handled"] += len(done)
        for item in done + [item for item in failed if self._is_given_up(item, now_s)]:
            self._acknowledge(item.event, now_s)
        failpoint("transport.turn.acknowledged")
        try:
            self._handler.after_commit()
        except Exception as error:  # noqa: BLE001 - the loop outlives any fault of its handler
            self._log_failure("after_commit_failed", error, now_s)
        failpoint("transport.turn.ended")

    def _is_given_up(self, item: Item, now_s: float) -> bool:
        self.counts["failed"] += 1
        if self._backlog.try_again(item, now_s):
            return False
        self.counts["dropped"] += 1
        if self._gate.admit("event_dropped", now_s) is not None:
            _log.error("event_dropped", failures=item.failures, **_about(item.event))
        return True

    def _wait_for_storage(self, batch: list[Item], error: Exception) -> None:
        """Keep the batch, of which nothing was committed, published or acknowledged."""
        self.counts["storage_failures"] += 1
        if not self._pauses:
            _log.error("storage_unavailable", error=str(error), events_kept=len(batch))
        self._backlog.keep(batch)
        self._pause(min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._pauses, 10)))
        self._pauses += 1

    def _publish(self, message: Outgoing, now_s: float) -> None:
        try:
            self._sessions[message.session].publish(message)
        except Exception as error:  # noqa: BLE001 - one bad message must not hold up the others
            self._log_failure("publish_failed", error, now_s, kind=message.topic.kind.name)

    def _acknowledge(self, event: object, now_s: float) -> None:
        if not isinstance(event, MessageArrived):
            return
        try:
            failpoint("transport.ack.before")
            event.ack()
            failpoint("transport.ack.after")
        except Exception as error:  # noqa: BLE001 - the message then comes again, as any may
            self._log_failure("ack_failed", error, now_s)

    def _refuse(self, item: Item, error: WireError, now_s: float) -> None:
        self.counts["refused"] += 1
        self.counts[f"refused:{error.code}"] += 1
        suppressed = self._gate.admit(error.code, now_s)
        if suppressed is not None:
            about = _about(item.event)
            _log.warning("message_refused", code=error.code, error=str(error), **about)

    def _log_failure(self, event_name: str, error: Exception, now_s: float, **ids: str) -> None:
        suppressed = self._gate.admit(f"{event_name}:{type(error).__name__}", now_s)
        if suppressed is not None:
            _log.error(event_name, exc_info=error, suppressed=suppressed, **ids)


def _about(event: object) -> dict[str, str]:
    about = {"event_type": type(event).__name__}
    if isinstance(event, MessageArrived):
        about["session"] = event.session
        about["topic"] = event.topic_name
    return about
