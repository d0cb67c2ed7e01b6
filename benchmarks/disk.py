"""What one durable write of a model's size takes on this disk: the unit of the aims."""

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Spread
from transport.database import open_database, transaction

WRITE_BYTES = 250_000
_SCHEMA = "CREATE TABLE blobs (one INTEGER PRIMARY KEY, blob BLOB NOT NULL)"


@dataclass(frozen=True, slots=True)
class DiskProbe:
    """Durations of single durable writes, gathered over several moments of a run.

    Attributes:
        appends_s: ``write`` and ``fdatasync`` of 250 kB at the end of a file.
        commits_s: One insert of a 250 kB blob, in a transaction of its own, in a database as the
            programs open it (WAL, ``synchronous=FULL``).
    """

    folder: Path
    appends_s: list[float] = field(default_factory=list)
    commits_s: list[float] = field(default_factory=list)

    def measure(self, count: int) -> None:
        """Write ``count`` times in either way; what was written is removed."""
        self.appends_s.extend(_append(self.folder / "probe.bin", count))
        self.commits_s.extend(_commit(self.folder / "probe.db", count))

    @property
    def unit_s(self) -> float:
        """One durable write for the aims: the cheaper of the two medians, the harder one."""
        return min(Spread.of(self.appends_s).median_s, Spread.of(self.commits_s).median_s)


def _append(path: Path, count: int) -> list[float]:
    data = os.urandom(WRITE_BYTES)
    durations = []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            began_s = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            durations.append(time.perf_counter() - began_s)
    path.unlink()
    return durations


def _commit(path: Path, count: int) -> list[float]:
    data = os.urandom(WRITE_BYTES)
    durations = []
    with closing(open_database(path, _SCHEMA, 1)) as connection:
        for _ in range(count):
            began_s = time.perf_counter()
            _insert(connection, data)
            durations.append(time.perf_counter() - began_s)
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    return durations


def _insert(connection: sqlite3.Connection, data: bytes) -> None:
    with transaction(connection):
        connection.execute("INSERT INTO blobs (blob) VALUES (?)", (data,))
