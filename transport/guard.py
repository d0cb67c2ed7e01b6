"""What surrounds every transaction of the loop: the claim on the database, and suspicion.

Without a claim (``fence.Fence``) there is neither: the program then trusts its lock alone.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from transport.database import is_storage_failure, transaction
from transport.events import MessageArrived
from transport.fence import Fence
from transport.suspects import Suspects

#: A life of the program that ends sooner, and out of order, may have been ended by a message.
_LONG_LIFE_S = 60.0

_log = structlog.get_logger()


class Guard:
    """Opens the loop's transactions, and keeps the book of how the program lives and ends."""

    def __init__(self, connection: sqlite3.Connection, fence: Fence | None) -> None:
        self._connection = connection
        self._fence = fence
        was_short_life = fence is not None and fence.was_short
        self._suspects = Suspects(connection, was_short_life=was_short_life)
        self._began_s = float("inf")
        self._is_long_life = False

    def is_careful(self, now_s: float) -> bool:
        """Tell whether events are to be handled one by one."""
        return self._suspects.is_careful(now_s)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block wrote, if the claim still stands.

        Raises:
            FencedError: It does not.
        """
        with transaction(self._connection):
            if self._fence is not None:
                self._fence.check()
            yield

    def note(self, event: object, now_s: float) -> int:
        """While careful, note the message in hand; return at how many ends it was that."""
        if not isinstance(event, MessageArrived) or not self.is_careful(now_s):
            return 0
        with self.transaction():
            return self._suspects.note(event, now_s)

    def cross_out(self, event: object, now_s: float) -> None:
        """Undo ``note``, in the transaction in which the message is handled."""
        if isinstance(event, MessageArrived) and self.is_careful(now_s):
            self._suspects.clear(event)

    def note_long_life(self, now_s: float) -> None:
        """Once, in the caller's transaction: this life did not end soon after it had begun."""
        if self._fence is None or self._is_long_life:
            return
        self._began_s = min(self._began_s, now_s)
        if now_s - self._began_s >= _LONG_LIFE_S:
            self._fence.live_long()
            self._is_long_life = True

    def leave(self) -> None:
        """Note that the program ends in order; a full disk must not keep it from ending.

        Raises:
            FencedError: The claim does not stand any more.
        """
        if self._fence is None:
            return
        try:
            with self.transaction():
                self._fence.leave()
        except Exception as error:
            if not is_storage_failure(error):
                raise
            _log.warning("end_not_noted", error=str(error))
