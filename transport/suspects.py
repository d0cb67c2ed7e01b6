"""Messages that end the program itself: found out at its next starts, and parked.

An exception can be caught; a message whose handling exhausts the memory or runs into a fault of a
native library ends the process, comes again with the next start, and ends it again. So after a
life that was short and did not end in order, the first messages are handled one by one, each noted
durably before and crossed out after. One that was noted at two ends is parked unhandled: with the
first end, of which nothing was noted, that makes three.
"""

import hashlib
import sqlite3

from transport.events import MessageArrived

#: Ends of the program with the same message in hand, after which it is not handled any more.
MAX_ENDS = 2
#: For so long after the first message, one by one.
CAREFUL_S = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS suspects (
    topic TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    ends INTEGER NOT NULL,
    PRIMARY KEY (topic, sha256)
) WITHOUT ROWID
"""


class LethalMessageError(Exception):
    """A message with which the program has ended again and again."""

    def __init__(self, ends: int) -> None:
        super().__init__(f"the program ended {ends + 1} times with this message in hand")


class Suspects:
    """The messages in hand at ends of the program; methods run in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, *, was_short_life: bool) -> None:
        """Use a database; the table is created when it is missing.

        Args:
            connection: The program's database.
            was_short_life: Whether the life before this one was short and ended out of order.
        """
        connection.execute(_SCHEMA)
        self._connection = connection
        self._until_s = float("inf") if was_short_life else float("-inf")

    def is_careful(self, now_s: float) -> bool:
        """Tell whether events are to be handled one by one, and messages noted before."""
        return now_s <= self._until_s

    def note(self, event: MessageArrived, now_s: float) -> int:
        """Note a message that is about to be handled; return at how many ends it was in hand."""
        self._until_s = min(self._until_s, now_s + CAREFUL_S)
        key = _key(event)
        row = self._connection.execute(
            "SELECT ends FROM suspects WHERE topic = ? AND sha256 = ?", key
        ).fetchone()
        ends = int(row[0]) if row else 0
        self._connection.execute(
            "INSERT OR REPLACE INTO suspects VALUES (?, ?, ?)", (*key, ends + 1)
        )
        return ends

    def clear(self, event: MessageArrived) -> None:
        """Cross a message out: the program has outlived it, or has parked it."""
        key = _key(event)
        self._connection.execute("DELETE FROM suspects WHERE topic = ? AND sha256 = ?", key)


def _key(event: MessageArrived) -> tuple[str, str]:
    return event.topic_name, hashlib.sha256(event.payload).hexdigest()
