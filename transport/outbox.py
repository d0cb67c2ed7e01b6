"""Updates that were not yet receipted: rows in the program's own database.

A row is added in the transaction that makes the update, and removed only by a final receipt that
names the object's SHA-256. All methods run inside the caller's transaction.
"""

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

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
        raise NotImplementedError

    def get(self, xfer: str) -> OutboxEntry | None:
        """Return one row, or None."""
        raise NotImplementedError

    def due(self, now_s: float, limit: int, skip: Collection[str] = ()) -> list[OutboxEntry]:
        """Return rows whose time has come, the longest due first.

        Args:
            now_s: Now, unix seconds.
            limit: At most so many, because each brings its frame.
            skip: Transfer ids to leave out.
        """
        raise NotImplementedError

    def attempted(self, xfer: str, next_try_s: float) -> None:
        """Note one more try and when the next is due."""
        raise NotImplementedError

    def postpone(self, xfer: str, next_try_s: float) -> None:
        """Set when the next try is due, without counting one."""
        raise NotImplementedError

    def hold(self, xfer: str, next_try_s: float) -> None:
        """Note that a gateway has custody; it is offered again at ``next_try_s``."""
        raise NotImplementedError

    def remove(self, xfer: str, sha256: str) -> OutboxEntry | None:
        """Remove a row if its object has this digest; return what was removed."""
        raise NotImplementedError

    def wake(self, now_s: float) -> None:
        """Make every row due now, as if never tried; held ones keep their time."""
        raise NotImplementedError

    def total_bytes(self) -> int:
        """Return the sum of all objects' sizes."""
        raise NotImplementedError

    def count(self) -> int:
        """Return the number of rows."""
        raise NotImplementedError

    def next_due_s(self, skip: Collection[str] = ()) -> float | None:
        """Return when the next row is due; None: there is none."""
        raise NotImplementedError
