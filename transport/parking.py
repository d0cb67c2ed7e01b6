"""Messages that could not be handled, set aside where a person finds them.

A message whose handling raised three times would else come back for ever and hold up what is
behind it. It is written here in the transaction after which it is acknowledged. The table keeps
the newest within bounds. Nothing is taken out of it and handled again: whatever awaits an answer
is sent again by its sender, and is then handled by a program in which the fault is mended.
"""

import hashlib
import sqlite3
from dataclasses import dataclass

from transport.events import MessageArrived

MAX_ROWS = 100
#: Of one message this much is kept, of all together that much; the oldest go first.
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_BYTES = 4 * 1024 * 1024
MAX_ERROR_CHARACTERS = 300
#: So many are named in a program's state.
SHOWN = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS parked (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    error TEXT NOT NULL,
    first_s REAL NOT NULL,
    last_s REAL NOT NULL,
    tries INTEGER NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (topic, sha256)
)
"""
_COLUMNS = "number, topic, sha256, size, error, first_s, last_s, tries"


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """One parked message.

    Attributes:
        number: Its id in this database.
        topic: Where it came by; ``event:TYPE`` for a result of the program's own worker.
        sha256: Digest of its payload.
        size: Of its payload, bytes.
        error: What its handling raised at last.
        first_s: When it was first parked, unix seconds.
        last_s: When it was last parked.
        tries: How often it was handled in vain.
    """

    number: int
    topic: str
    sha256: str
    size: int
    error: str
    first_s: float
    last_s: float
    tries: int


@dataclass(frozen=True, slots=True)
class ParkedSummary:
    """What a program says of its parked messages: how many, and the newest few."""

    count: int = 0
    newest: tuple[ParkedRow, ...] = ()


def nothing_parked() -> ParkedSummary:
    """Return the summary of an empty table."""
    return ParkedSummary()


class Parking:
    """The parked messages of one database; all methods run in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a database; the table is created when it is missing, in a transaction of its own."""
        connection.execute(_SCHEMA)
        self._connection = connection

    def park(self, event: object, error: str, tries: int, now_s: float) -> None:
        """Set an event aside; one that is there already is counted on.

        Args:
            event: A message, or a worker's result, of which only its type is kept.
            error: What its handling raised.
            tries: How often it was handled in vain, this time.
            now_s: Now, unix seconds.
        """
        topic, payload = _content(event)
        kept = payload[:MAX_PAYLOAD_BYTES]
        self._connection.execute(
            "INSERT INTO parked"
            " (topic, sha256, size, kept, error, first_s, last_s, tries, payload)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (topic, sha256) DO UPDATE SET"
            " error = excluded.error, last_s = excluded.last_s, tries = tries + excluded.tries",
            (
                topic,
                hashlib.sha256(payload).hexdigest(),
                len(payload),
                len(kept),
                storable(error),
                now_s,
                now_s,
                tries,
                kept,
            ),
        )
        self._make_room()

    def count(self) -> int:
        """Return how many there are."""
        (count,) = self._connection.execute("SELECT count(*) FROM parked").fetchone()
        return int(count)

    def summary(self) -> ParkedSummary:
        """Return how many there are, and the newest few."""
        count = self.count()
        return ParkedSummary(count, tuple(self.newest(SHOWN))) if count else ParkedSummary()

    def newest(self, limit: int) -> list[ParkedRow]:
        """Return the ones that were parked last, the newest first."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM parked ORDER BY last_s DESC, number DESC LIMIT ?",  # noqa: S608 - constants
            (limit,),
        )
        return [ParkedRow(*row) for row in rows]

    def payload(self, number: int) -> bytes:
        """Return what was kept of one; empty when it is gone."""
        row = self._connection.execute(
            "SELECT payload FROM parked WHERE number = ?", (number,)
        ).fetchone()
        return bytes(row[0]) if row else b""

    def drop(self, number: int | None) -> int:
        """Remove one, or all for None; return how many were removed."""
        where, values = ("", ()) if number is None else (" WHERE number = ?", (number,))
        return self._connection.execute(f"DELETE FROM parked{where}", values).rowcount  # noqa: S608

    def _make_room(self) -> None:
        rows = self._connection.execute(
            "SELECT number, kept FROM parked ORDER BY last_s DESC, number DESC"
        ).fetchall()
        total = 0
        for place, (number, kept) in enumerate(rows):
            total += kept
            if place >= MAX_ROWS or total > MAX_BYTES:
                self.drop(number)


def storable(text: str) -> str:
    """Return a text that SQLite and JSON take: short, and without lone surrogates."""
    return text[:MAX_ERROR_CHARACTERS].encode("utf-8", "replace").decode()


def _content(event: object) -> tuple[str, bytes]:
    if isinstance(event, MessageArrived):
        return event.topic_name, event.payload
    return f"event:{type(event).__name__}", b""
