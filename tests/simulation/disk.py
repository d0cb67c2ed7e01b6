"""Simulated disks: databases in memory that a kill rolls back, files that a power cut tears."""

import errno
import functools
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transport import database, objects
from transport.fence import Fence
from transport.parking import Parking

_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class SimulatedConnection(sqlite3.Connection):
    """A database in memory: what was committed stays, for as long as the world does."""

    #: Called at each effect; None while nobody may be killed here.
    effect: Callable[[str], None] | None = None
    is_full = False

    def watch(self, effect: Callable[[str], None] | None) -> None:
        """Have each effect told; while nobody listens and there is room, nothing stands between."""
        self.effect = effect
        is_plain = effect is None and not self.is_full
        self.__class__ = SimulatedConnection if is_plain else WatchedConnection

    def lose_uncommitted(self) -> None:
        """Be what a program finds that starts after a kill."""
        if self.in_transaction:
            self.execute("ROLLBACK")


class WatchedConnection(SimulatedConnection):
    """The same, where a program may be killed, or where the disk is full."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        verb = sql[:6]
        if verb in _WRITES:
            if self.is_full:
                message = "database or disk is full"
                raise sqlite3.OperationalError(message)
            self._come_by(verb)
            return super().execute(sql, parameters)
        if verb == "COMMIT":
            self._come_by("before COMMIT")
            cursor = super().execute(sql, parameters)
            self._come_by("after COMMIT")
            return cursor
        return super().execute(sql, parameters)

    def _come_by(self, label: str) -> None:
        if self.effect is not None:
            self.effect(label)


@functools.cache
def _template(schema_sql: str, version: int) -> sqlite3.Connection:
    """Return a database as ``open_database`` makes it, to be copied: that is much quicker."""
    with tempfile.TemporaryDirectory() as folder:
        made = database.open_database(Path(folder) / "template.db", schema_sql, version)
        Fence.claim(made).leave()
        Parking(made)
        kept = sqlite3.connect(":memory:", isolation_level=None)
        made.backup(kept)
        made.close()
    return kept


#: Empty databases of earlier worlds: what they have prepared need not be prepared again.
_emptied: dict[str, list[SimulatedConnection]] = {}


def new_database(kind: str, schema_sql: str, version: int) -> SimulatedConnection:
    """Return an empty database with the tables of one kind of program."""
    spare = _emptied.get(kind)
    return spare.pop() if spare else copy_of(_template(schema_sql, version))


def give_back(kind: str, connection: SimulatedConnection) -> None:
    """Empty a database for a later world."""
    connection.is_full = False
    connection.watch(None)
    connection.lose_uncommitted()
    connection.execute("PRAGMA foreign_keys = OFF")
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    for (table,) in connection.execute(query).fetchall():
        connection.execute(f"DELETE FROM {table}")
    connection.execute("PRAGMA foreign_keys = ON")
    _emptied.setdefault(kind, []).append(connection)


class Reader:
    """A worker's own view of what is committed: it works between its program's transactions."""

    def __init__(self, connection: SimulatedConnection) -> None:
        assert not connection.in_transaction
        self._connection = connection

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        assert sql.startswith(("SELECT", "PRAGMA"))
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        return


def copy_of(source: sqlite3.Connection) -> SimulatedConnection:
    """Return a database of its own with what is committed in another."""
    made = sqlite3.connect(":memory:", isolation_level=None, factory=SimulatedConnection)
    source.backup(made)
    made.execute("PRAGMA foreign_keys = ON")
    return made


class Files:
    """Which files and which names would survive a power cut."""

    def __init__(self) -> None:
        self._synced: set[int] = set()
        self._named: set[Path] = set()

    def fsync(self, path: Path) -> None:
        if path.is_dir():
            self._named.update(path.iterdir())
        else:
            self._synced.add(path.stat().st_ino)

    def cut_power(self, folders: Iterable[Path], rng: random.Random) -> int:
        """Tear or remove what was not synced; return how many files were hit."""
        hit = 0
        for folder in folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                hit += self._hit(path, rng)
        return hit

    def _hit(self, path: Path, rng: random.Random) -> bool:
        size = path.stat().st_size
        if path.stat().st_ino not in self._synced:
            torn = rng.random()
            if torn < 0.5:
                os.truncate(path, int(size * torn * 2))
                return True
            return False
        if path not in self._named and rng.random() < 0.5:
            path.unlink()
            return True
        return False


_real_sync = objects.sync


def watch_fsync(hook: Callable[[Path], None] | None) -> None:
    """Have every fsync of an object go to ``hook``, which may raise; None: to the disk."""
    objects.sync = _real_sync if hook is None else hook


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
