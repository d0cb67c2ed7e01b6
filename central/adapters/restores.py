"""What a backup of central holds, and the mark that a restore leaves in its database."""

import sqlite3

from central.core.tasks import ROUNDS_AN_EPOCH

#: The digests of the objects that the tables name; the bytes of small updates are in a table.
#: An older database has no ``rounds.delta_sha256``: there the outer one, NULL, is meant.
NAMED_OBJECTS = """
SELECT model_sha256 FROM tasks WHERE model_sha256 IS NOT NULL
UNION SELECT json_extract(plan, '$.graph_sha256') FROM tasks
    WHERE json_extract(plan, '$.graph_sha256') IS NOT NULL
UNION SELECT base_model_sha256 FROM rounds
UNION SELECT model_sha256 FROM rounds WHERE model_sha256 IS NOT NULL
UNION SELECT named FROM (
    SELECT (SELECT delta_sha256 FROM rounds AS own WHERE own.rowid = rounds.rowid) AS named
    FROM rounds, (SELECT NULL AS delta_sha256)
) WHERE named IS NOT NULL
UNION SELECT sha256 FROM contributions
    WHERE NOT EXISTS (SELECT 1 FROM payloads WHERE payloads.task = contributions.task
        AND payloads.round = contributions.round AND payloads.device = contributions.device)
"""


def newest_epoch(connection: sqlite3.Connection) -> int:
    """Return the epoch of the newest restore or round; a database of any schema version."""
    (newest,) = connection.execute("SELECT max(round) FROM rounds").fetchone()
    epoch = max(0, (newest or 0) - 1) // ROUNDS_AN_EPOCH
    table = "SELECT 1 FROM sqlite_master WHERE name = 'restores'"
    if connection.execute(table).fetchone() is None:
        return epoch
    (restored,) = connection.execute("SELECT max(epoch) FROM restores").fetchone()
    return max(epoch, restored or 0)


def mark_restored(
    connection: sqlite3.Connection, backup_s: float, now_s: float, *, above_epoch: int = 0
) -> None:
    """Note that this database comes from a backup; central's next start acts on it.

    Args:
        connection: Central's database, in a transaction or in autocommit.
        backup_s: When the backup was taken, unix seconds.
        now_s: When it was restored, unix seconds.
        above_epoch: The newest epoch of the state that it replaces, if that is known.
    """
    epoch = max(newest_epoch(connection), above_epoch) + 1
    connection.execute(
        "INSERT INTO restores (at_s, backup_s, epoch, handled) VALUES (?, ?, ?, 0)",
        (now_s, backup_s, epoch),
    )
