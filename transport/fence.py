"""One owner a database: a start claims it, and whoever claimed it before may write no more.

The lock on the state directory (``state_lock``) keeps a second program out. This is for where that
lock does not hold: its file was removed, or the directory is reached over a file system that does
not share locks. The claim is a random token in a table of one row. Every transaction reads it
first: under SQLite's isolation it then either commits before the next claim, or not at all.
"""

import secrets
import sqlite3

from typing_extensions import Self

_TOKEN_BYTES = 16
_SCHEMA = """
CREATE TABLE IF NOT EXISTS owner (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    token TEXT NOT NULL,
    is_clean INTEGER NOT NULL,
    is_long INTEGER NOT NULL
)
"""


class FencedError(Exception):
    """Another start of the program has claimed the database; this one must end at once."""

    def __init__(self) -> None:
        super().__init__(
            "another start of this program has taken over its state_dir; nothing more is written "
            "or sent from here: give each program a directory of its own (E_FENCED)"
        )


class Fence:
    """This start's claim on its database.

    Attributes:
        was_clean: Whether the start before this one ended in order; True for a new database.
        was_short: Whether that start did not, and not long after it had begun.
    """

    def __init__(
        self, connection: sqlite3.Connection, token: str, *, was_clean: bool, was_short: bool
    ) -> None:
        self.was_clean = was_clean
        self.was_short = was_short
        self._connection = connection
        self._token = token

    @classmethod
    def claim(cls, connection: sqlite3.Connection) -> Self:
        """Take the database over, in a transaction of its own.

        Raises:
            sqlite3.OperationalError: Another program writes and does not end.
        """
        token = secrets.token_hex(_TOKEN_BYTES)
        # Deferred, the read would take a view of the database that a commit of the owner spoils.
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(_SCHEMA)
            row = connection.execute("SELECT is_clean, is_long FROM owner").fetchone()
            connection.execute("INSERT OR REPLACE INTO owner VALUES (1, ?, 0, 0)", (token,))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        is_clean, is_long = row or (True, True)
        was_short = not is_clean and not is_long
        return cls(connection, token, was_clean=bool(is_clean), was_short=was_short)

    def check(self) -> None:
        """Make sure, first of all in a transaction, that the claim still stands.

        Raises:
            FencedError: It does not; roll back, publish nothing, acknowledge nothing.
        """
        row = self._connection.execute("SELECT token FROM owner").fetchone()
        if row is None or row[0] != self._token:
            raise FencedError

    def live_long(self) -> None:
        """Note that this start has lasted, inside the caller's transaction."""
        self._connection.execute("UPDATE owner SET is_long = 1 WHERE token = ?", (self._token,))

    def leave(self) -> None:
        """Note that this start ended in order, inside the caller's transaction."""
        self._connection.execute("UPDATE owner SET is_clean = 1 WHERE token = ?", (self._token,))
