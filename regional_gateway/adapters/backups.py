"""What a backup of a gateway holds, and what must be put right where it is restored."""

import sqlite3
from pathlib import Path

#: The digests of the objects that custody rows name as files; models are fetched again.
NAMED_OBJECTS = "SELECT DISTINCT sha256 FROM outbox WHERE path IS NOT NULL"


def move_custody(connection: sqlite3.Connection, objects: Path) -> None:
    """Make the custody rows name the files where they are now, below ``objects``."""
    connection.execute(
        "UPDATE outbox SET path = ? || '/' || sha256 WHERE path IS NOT NULL",
        (str(objects.resolve()),),
    )
