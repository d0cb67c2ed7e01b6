"""Updates that were not yet receipted: rows in the program's own database.

A row is added in the transaction that makes the update, and removed only by a final receipt that
names the object's SHA-256. All methods run inside the caller's transaction.
"""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transport.failpoints import failpoint

OUTBOX_SCHEMA = """
CREATE TABLE outbox (
    xfer TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    device TEXT NOT NULL,
    frame BLOB NOT NULL,
    path TEXT,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    chunk_bytes INTEGER NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    next_try_s REAL NOT NULL,
    created_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX outbox_next_try ON outbox (next_try_s);
"""
_COLUMNS = (
    "xfer, task, round, device, frame, path, sha256, size, chunk_bytes,"
    " held, tries, next_try_s, created_s"
)


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One update on its way.

    Attributes:
        xfer: Transfer id.
        task: Task id.
        round_number: Round of the task.
        device: The device whose update it is.
        frame: The manifest's frame exactly as it is published; an inline object is its tail.
        sha256: The object's digest.
        size: The object's size, bytes.
        created_s: When the row was added, unix seconds.
        path: The object's file; None when it rides inline.
        chunk_bytes: Size of a chunk; 0 when the object rides inline.
        held: Whether a gateway has taken custody of it.
        tries: How often it was offered since the last wake.
        next_try_s: When it is offered next, unix seconds.
    """

    xfer: str
    task: str
    round_number: int
    device: str
    frame: bytes
    sha256: str
    size: int
    created_s: float
    path: Path | None = None
    chunk_bytes: int = 0
    held: bool = False
    tries: int = 0
    next_try_s: float = 0.0


class Outbox:
    """The outbox table of one database."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, entry: OutboxEntry) -> bool:
        """Add a row; return False when its transfer is already there, which stays as it is."""
        values = _row(entry)
        marks = ", ".join("?" * len(values))
        cursor = self._connection.execute(
            f"INSERT OR IGNORE INTO outbox ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants
            values,
        )
        failpoint("transport.outbox.added")
        return cursor.rowcount == 1

    def get(self, xfer: str) -> OutboxEntry | None:
        """Return one row, or None."""
        rows = self._select("WHERE xfer = ?", (xfer,))
        return rows[0] if rows else None

    def due(self, now_s: float, limit: int, skip: Collection[str] = ()) -> list[OutboxEntry]:
        """Return rows whose time has come, the longest due first.

        Args:
            now_s: Now, unix seconds.
            limit: At most so many, because each brings its frame.
            skip: Transfer ids to leave out.
        """
        where = f"WHERE next_try_s <= ? {_not_in(skip)} ORDER BY next_try_s, xfer LIMIT ?"
        return self._select(where, (now_s, *skip, limit))

    def attempted(self, xfer: str, next_try_s: float) -> None:
        """Note one more try and when the next is due."""
        self._connection.execute(
            "UPDATE outbox SET tries = tries + 1, next_try_s = ? WHERE xfer = ?",
            (next_try_s, xfer),
        )
        failpoint("transport.outbox.attempted")

    def postpone(self, xfer: str, next_try_s: float) -> None:
        """Set when the next try is due, without counting one."""
        self._connection.execute(
            "UPDATE outbox SET next_try_s = ? WHERE xfer = ?", (next_try_s, xfer)
        )

    def hold(self, xfer: str, next_try_s: float) -> None:
        """Note that a gateway has custody; it is offered again at ``next_try_s``."""
        self._connection.execute(
            "UPDATE outbox SET held = 1, next_try_s = ? WHERE xfer = ?", (next_try_s, xfer)
        )
        failpoint("transport.outbox.held")

    def remove(self, xfer: str, sha256: str) -> OutboxEntry | None:
        """Remove a row if its object has this digest; return what was removed."""
        entry = self.get(xfer)
        if entry is None or entry.sha256 != sha256:
            return None
        self._connection.execute("DELETE FROM outbox WHERE xfer = ?", (xfer,))
        failpoint("transport.outbox.removed")
        return entry

    def wake(self, now_s: float, held_s: float) -> None:
        """Make every row due now, as if never tried; held ones by ``held_s`` at the latest.

        The clock may have been set back since their time was chosen.
        """
        self._connection.execute(
            "UPDATE outbox SET tries = 0, next_try_s = ? WHERE held = 0", (now_s,)
        )
        self._connection.execute(
            "UPDATE outbox SET next_try_s = ? WHERE held = 1 AND next_try_s > ?", (held_s, held_s)
        )
        failpoint("transport.outbox.woken")

    def total_bytes(self) -> int:
        """Return the sum of all objects' sizes."""
        (total,) = self._connection.execute("SELECT total(size) FROM outbox").fetchone()
        return int(total)

    def count(self) -> int:
        """Return the number of rows."""
        (count,) = self._connection.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def oldest_s(self) -> float | None:
        """Return when the oldest row was added, unix seconds; None: there is none."""
        (oldest_s,) = self._connection.execute("SELECT min(created_s) FROM outbox").fetchone()
        return None if oldest_s is None else float(oldest_s)

    def next_due_s(self, skip: Collection[str] = ()) -> float | None:
        """Return when the next row is due; None: there is none."""
        row = self._connection.execute(
            f"SELECT next_try_s FROM outbox WHERE 1 {_not_in(skip)} ORDER BY next_try_s LIMIT 1",  # noqa: S608 - only marks
            tuple(skip),
        ).fetchone()
        return None if row is None else float(row[0])

    def _select(self, where: str, values: tuple[object, ...]) -> list[OutboxEntry]:
        query = f"SELECT {_COLUMNS} FROM outbox {where}"  # noqa: S608 - constants and marks
        return [_entry(row) for row in self._connection.execute(query, values)]


def _not_in(skip: Collection[str]) -> str:
    return f"AND xfer NOT IN ({', '.join('?' * len(skip))})" if skip else ""


def _row(entry: OutboxEntry) -> tuple[object, ...]:
    return (
        entry.xfer,
        entry.task,
        entry.round_number,
        entry.device,
        entry.frame,
        None if entry.path is None else str(entry.path),
        entry.sha256,
        entry.size,
        entry.chunk_bytes,
        entry.held,
        entry.tries,
        entry.next_try_s,
        entry.created_s,
    )


def _entry(row: tuple[Any, ...]) -> OutboxEntry:
    xfer, task, round_number, device, frame, path, sha256, size, chunk_bytes, *state = row
    held, tries, next_try_s, created_s = state
    return OutboxEntry(
        xfer=xfer,
        task=task,
        round_number=round_number,
        device=device,
        frame=frame,
        path=None if path is None else Path(path),
        sha256=sha256,
        size=size,
        chunk_bytes=chunk_bytes,
        held=bool(held),
        tries=tries,
        next_try_s=next_try_s,
        created_s=created_s,
    )
