"""The one loop of every program: events in, one transaction, messages out.

All events that have arrived together are handled in one transaction (group commit: one fsync).
Only after it has committed are messages published and arrivals acknowledged, so a crash at any
point leaves either all of it or nothing.
"""

import queue
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from schemas.errors import WireError
from transport.backlog import Backlog, Item
from transport.database import is_damage, is_storage_failure, savepoint
from transport.events import MessageArrived, Outgoing, Session
from transport.failpoints import failpoint
from transport.fence import Fence
from transport.guard import Guard
from transport.handler import Handler
from transport.liveness import Liveness
from transport.log_gate import LogGate
from transport.parking import Parking
from transport.suspects import MAX_ENDS, LethalMessageError

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


def steady_clock() -> Callable[[], float]:
    """Return a clock of unix seconds that never jumps while the program runs."""
    offset_s = time.time() - time.monotonic()
    return lambda: offset_s + time.monotonic()


@dataclass(slots=True)
class _Turn:
    """What became of the events of one turn, and what is to be published."""

    done: list[Item] = field(default_factory=list)
    failed: list[Item] = field(default_factory=list)
    parked: list[Item] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)


class ServiceLoop:
    """Runs a handler on the events of its sessions; the caller starts and stops the sessions.

    Attributes:
        counts: What happened since the start: ``handled``, ``refused`` (and ``refused:CODE``),
            ``failed``, ``parked``, ``storage_failures``.
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
        fence: Fence | None = None,
        committed: Callable[[float], None] | None = None,
        liveness: Liveness | None = None,
    ) -> None:
        """Prepare the loop; nothing happens before ``run``.

        Args:
            connection: The program's database; only this loop's thread may use it from now on.
            events: Filled by the sessions and by the program's workers.
            sessions: By the name that ``Outgoing.session`` uses.
            handler: The program.
            clock: Unix seconds; default ``steady_clock()``.
            pause: Waits while the disk is full.
            fence: The claim on the database, looked at in every transaction.
            committed: Told how long each turn took to handle and commit, seconds.
            liveness: Told of every turn; None: nobody watches.
        """
        self.counts: Counter[str] = Counter()
        self._connection = connection
        self._backlog = Backlog(events)
        self._sessions = sessions
        self._handler = handler
        self._clock = clock or steady_clock()
        self._pause = pause
        self._parking = Parking(connection)
        self._guard = Guard(connection, fence)
        self._committed = committed
        self._liveness = liveness
        self._gate = LogGate()
        self._stopping = False
        self._ticked_s = float("-inf")
        self._pauses = 0

    def run(self) -> None:
        """Handle events until ``stop``.

        Raises:
            SessionDeadError: A session's thread has ended.
            FencedError: Another start of the program has claimed the database.
            sqlite3.DatabaseError: The database is damaged.
        """
        try:
            while not self._stopping:
                self.turn()
            self._guard.leave()
        finally:
            if self._liveness is not None:
                self._liveness.stopping()

    def turn(self) -> None:
        """Wait for events, handle them all, commit, publish, acknowledge: once.

        Raises:
            SessionDeadError: A session's thread has ended.
            FencedError: Another start of the program has claimed the database; nothing of this
                turn was committed, published or acknowledged.
        """
        for name, session in self._sessions.items():
            if not session.is_alive:
                raise SessionDeadError(name)
        now_s = self._clock()
        batch = self._backlog.gather(now_s, self._wait_s(now_s))
        if self._liveness is not None:
            self._liveness.turned((item.event for item in batch), self._sessions)
        failpoint("transport.batch.gathered")
        if self._guard.is_careful(now_s):
            self._backlog.keep(batch[1:])
            batch = batch[:1]
        began_s = time.perf_counter()
        try:
            turn = self._commit(batch)
        except Exception as error:
            if not is_storage_failure(error):
                raise
            self._wait_for_storage(batch, error)
            return
        if self._committed is not None:
            self._committed(time.perf_counter() - began_s)
        failpoint("transport.turn.committed")
        self._after_commit(turn)

    def stop(self) -> None:
        """Make ``run`` return after the turn in progress; may be called in a signal handler."""
        self._stopping = True
        self._backlog.wake()

    def wake(self) -> None:
        """Make the next turn begin at once; may be called from any thread."""
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

    def _commit(self, batch: list[Item]) -> _Turn:
        """Handle a batch in one transaction; return what became of it."""
        now_s = self._clock()
        turn = _Turn()
        ends = self._guard.note(batch[0].event, now_s) if batch else 0
        with self._guard.transaction():
            for item in batch:
                self._handle(item, now_s, turn, ends)
                failpoint("transport.event.handled")
            if self._tick_due_s(now_s) <= now_s:
                self._tick(now_s, turn.outgoing)
                self._guard.note_long_life(now_s)
            failpoint("transport.turn.handled")
        return turn

    def _handle(self, item: Item, now_s: float, turn: _Turn, ends: int) -> None:
        if self._liveness is not None:
            self._liveness.progressed()
        self._guard.cross_out(item.event, now_s)
        if ends >= MAX_ENDS:
            self._park(item, LethalMessageError(ends), now_s, turn)
            return
        try:
            with savepoint(self._connection):
                turn.outgoing.extend(list(self._handler.handle(item.event, now_s)))
        except WireError as error:
            self._refuse(item, error, now_s)
        except Exception as error:
            if is_storage_failure(error) or is_damage(error):
                raise
            self._log_failure("event_failed", error, now_s, **_about(item.event))
            if item.is_last_try:
                self._park(item, error, now_s, turn)
            else:
                turn.failed.append(item)
            return
        turn.done.append(item)

    def _park(self, item: Item, error: Exception, now_s: float, turn: _Turn) -> None:
        """Set an event aside, in the transaction after which it is acknowledged."""
        why = f"{type(error).__name__}: {error}"
        self._parking.park(item.event, why, item.failures + 1, now_s)
        turn.parked.append(item)
        try:
            with savepoint(self._connection):
                turn.outgoing.extend(list(self._handler.give_up(item.event, why, now_s)))
        except Exception as problem:
            if is_storage_failure(problem) or is_damage(problem):
                raise
            self._log_failure("give_up_failed", problem, now_s)

    def _tick(self, now_s: float, outgoing: list[Outgoing]) -> None:
        self._ticked_s = now_s
        try:
            with savepoint(self._connection):
                outgoing.extend(list(self._handler.tick(now_s)))
        except Exception as error:
            if is_storage_failure(error) or is_damage(error):
                raise
            self._log_failure("tick_failed", error, now_s)

    def _after_commit(self, turn: _Turn) -> None:
        now_s = self._clock()
        if self._pauses:
            _log.info("storage_recovered", after_pauses=self._pauses)
            self._pauses = 0
        for message in turn.outgoing:
            failpoint("transport.publish.before")
            self._publish(message, now_s)
            failpoint("transport.publish.after")
        failpoint("transport.turn.published")
        self._count(turn, now_s)
        for item in turn.failed:
            self._backlog.try_again(item, now_s)
        for item in turn.done + turn.parked:
            self._acknowledge(item.event, now_s)
        failpoint("transport.turn.acknowledged")
        try:
            self._handler.after_commit()
        except Exception as error:  # noqa: BLE001 - the loop outlives any fault of its handler
            self._log_failure("after_commit_failed", error, now_s)
        failpoint("transport.turn.ended")

    def _count(self, turn: _Turn, now_s: float) -> None:
        self.counts["handled"] += len(turn.done)
        self.counts["failed"] += len(turn.failed) + len(turn.parked)
        self.counts["parked"] += len(turn.parked)
        for item in turn.parked:
            if self._gate.admit("event_parked", now_s) is not None:
                _log.error("event_parked", tries=item.failures + 1, **_about(item.event))

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
