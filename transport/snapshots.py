"""How things stand in a program, asked by another thread and answered by the loop's own.

Only the loop's thread may touch the database, and nobody may hold it up. So whoever wants to know
asks and waits; the loop takes a snapshot behind its next commit. When it is too busy, or stands
still, the asker goes on with the snapshot before, and with its age.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from transport.events import Connected, Outgoing
from transport.handler import Handler

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[S]):
    """One answer.

    Attributes:
        content: How things stood.
        taken_s: When, on the clock of ``Snapshots``.
    """

    content: S
    taken_s: float


class Snapshots(Generic[S]):
    """The newest snapshot, and the wish for a newer one."""

    def __init__(self, take: Callable[[float], S], clock: Callable[[], float]) -> None:
        """Begin without a snapshot.

        Args:
            take: Says how things stand at a time, unix seconds; called on the loop's thread only.
            clock: Unix seconds, from any thread.
        """
        self._take = take
        self._clock = clock
        self._changed = threading.Condition()
        self._is_wanted = False
        self._newest: Snapshot[S] | None = None

    def answer(self) -> None:
        """Take a snapshot if somebody waits for one; the loop's thread calls this."""
        if not self._is_wanted:
            return
        now_s = self._clock()
        taken = Snapshot(self._take(now_s), now_s)
        with self._changed:
            self._is_wanted = False
            self._newest = taken
            self._changed.notify_all()

    def ask(self, wake: Callable[[], None], timeout_s: float) -> Snapshot[S] | None:
        """Return a new snapshot, or after ``timeout_s`` the newest there is, if any.

        Args:
            wake: Makes the loop take a turn.
            timeout_s: How long to wait for it, seconds.
        """
        with self._changed:
            before = self._newest
            self._is_wanted = True
            wake()
            self._changed.wait_for(lambda: self._newest is not before, timeout_s)
            return self._newest

    def age_s(self, snapshot: Snapshot[S]) -> float:
        """Return how old a snapshot is, seconds."""
        return max(0.0, self._clock() - snapshot.taken_s)


class Observed(Generic[S]):
    """A program's handler, as the loop has it, with the snapshot behind each commit.

    Attributes:
        connections: How often each session was connected.
    """

    def __init__(self, handler: Handler, snapshots: Snapshots[S]) -> None:
        self.connections: Counter[str] = Counter()
        self._handler = handler
        self._snapshots = snapshots

    def handle(self, event: object, now_s: float) -> Iterable[Outgoing]:
        """Pass an event on; connections are counted."""
        if isinstance(event, Connected):
            self.connections[event.session] += 1
        return self._handler.handle(event, now_s)

    def tick(self, now_s: float) -> Iterable[Outgoing]:
        """Pass it on."""
        return self._handler.tick(now_s)

    def next_due_s(self, now_s: float) -> float | None:
        """Pass it on."""
        return self._handler.next_due_s(now_s)

    def after_commit(self) -> None:
        """Pass it on, then answer who asked for a snapshot."""
        self._handler.after_commit()
        self._snapshots.answer()

    def give_up(self, event: object, why: str, now_s: float) -> Iterable[Outgoing]:
        """Pass it on."""
        return self._handler.give_up(event, why, now_s)
