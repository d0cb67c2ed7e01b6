"""What this device's last uploads took, in its database."""

import sqlite3

from device_agent.core.link import REMEMBERED, Upload


class SqliteUploadTimes:
    """``UploadTimes`` on the agent's one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, upload: Upload) -> None:
        """Remember one upload, and forget those that are too many."""
        self._connection.execute(
            "INSERT INTO upload_times (size_bytes, seconds) VALUES (?, ?)",
            (upload.size_bytes, upload.seconds),
        )
        self._connection.execute(
            "DELETE FROM upload_times WHERE number NOT IN "
            "(SELECT number FROM upload_times ORDER BY number DESC LIMIT ?)",
            (REMEMBERED,),
        )

    def recent(self) -> list[Upload]:
        """Return the uploads that are remembered, the oldest first."""
        rows = self._connection.execute(
            "SELECT size_bytes, seconds FROM upload_times ORDER BY number"
        )
        return [Upload(int(size), float(seconds)) for size, seconds in rows]
