"""What rounds have left for later ones, in the agent's database."""

import sqlite3

from device_agent.core.job import JobKey
from device_agent.service.ports import Memory


class SqliteMemoryStore:
    """``MemoryStore`` on the agent's one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: JobKey) -> Memory | None:
        """Return what a round has left, or None."""
        row = self._connection.execute(
            "SELECT sha256, payload, error, clock, mark FROM memories "
            "WHERE task = ? AND round = ?",
            (key.task, key.round),
        ).fetchone()
        if row is None:
            return None
        sha256, payload, error, clock, mark = row
        return Memory(sha256, payload, None, float(error), int(clock), mark)

    def save(self, key: JobKey, memory: Memory) -> None:
        """Insert or replace what a round has left."""
        self._connection.execute(
            "INSERT OR REPLACE INTO memories VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                key.task,
                key.round,
                memory.sha256,
                memory.payload,
                memory.error,
                memory.clock,
                memory.mark,
            ),
        )

    def keep_only(self, key: JobKey) -> None:
        """Remove what all other rounds of the task have left."""
        self._connection.execute(
            "DELETE FROM memories WHERE task = ? AND round != ?", (key.task, key.round)
        )

    def forget(self, task: str) -> None:
        """Remove all of a task."""
        self._connection.execute("DELETE FROM memories WHERE task = ?", (task,))

    def keep_newest(self, tasks: int) -> None:
        """Remove all but what the tasks have left that saved last, so many of them."""
        self._connection.execute(
            "DELETE FROM memories WHERE task NOT IN "
            "(SELECT task FROM memories GROUP BY task ORDER BY max(rowid) DESC LIMIT ?)",
            (tasks,),
        )

    def objects(self) -> frozenset[str]:
        """Return the SHA-256 of every memory that is an object."""
        rows = self._connection.execute("SELECT sha256 FROM memories WHERE payload IS NULL")
        return frozenset(sha256 for (sha256,) in rows)
