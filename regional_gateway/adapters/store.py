"""The gateway's rows in SQLite, in the same database as the custody outbox.

Statuses of devices are not worth an fsync of their own: the use case writes them together with
something that is. All methods run inside the caller's transaction.
"""

import json
import sqlite3
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter

from regional_gateway.core.answers import MAX_SETTLED, Key
from regional_gateway.core.roster import Presence
from regional_gateway.service.ports import AssignmentRow, FinalReceipt, StatusRow
from schemas.messages import ModelDelta, ObjectManifest, Settlement
from transport.outbox import OUTBOX_SCHEMA

SCHEMA_VERSION = 3
#: What leads to a version from the one before it.
MIGRATIONS = {
    2: "ALTER TABLE assignments ADD COLUMN graph TEXT",
    3: "ALTER TABLE assignments ADD COLUMN deltas TEXT",
}
DATABASE = "gateway.db"
SCHEMA = (
    OUTBOX_SCHEMA
    + """
-- Whoever asks for a sum or a digest must not have to read past the frames.
CREATE INDEX outbox_sha256 ON outbox (sha256);
CREATE INDEX outbox_size ON outbox (size);
CREATE TABLE devices (
    device TEXT PRIMARY KEY,
    boot INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    online INTEGER NOT NULL,
    changed_s REAL NOT NULL,
    frame BLOB NOT NULL
);
CREATE TABLE assignments (
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    cohort TEXT NOT NULL,
    deadline_s REAL NOT NULL,
    model TEXT NOT NULL,
    received_s REAL NOT NULL,
    frame BLOB NOT NULL,
    graph TEXT,
    deltas TEXT,
    PRIMARY KEY (task, round)
);
CREATE TABLE statuses (
    device TEXT NOT NULL,
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    state TEXT NOT NULL,
    frame BLOB NOT NULL,
    PRIMARY KEY (task, round, device)
) WITHOUT ROWID;
CREATE TABLE settlements (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL,
    round INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (task, round)
);
CREATE TABLE receipts (
    xfer TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    received_s REAL NOT NULL,
    frame BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX receipts_received ON receipts (received_s);
"""
)

_DAY_S = 86_400.0
RECEIPTS_KEPT_S = 7 * _DAY_S
ASSIGNMENTS_KEPT_S = 7 * _DAY_S
DEVICES_KEPT_S = 30 * _DAY_S
_SETTLEMENTS_KEPT = 4 * MAX_SETTLED
_ASSIGNMENT = (
    "SELECT task, round, cohort, deadline_s, model, received_s, graph, deltas FROM assignments"
)
_DELTAS = TypeAdapter(tuple[ModelDelta, ...])
_PRESENCE = "SELECT device, boot, seq, online, changed_s FROM devices"


class SqliteStore:
    """All rows of one gateway; see ``regional_gateway.service.ports.GatewayStore``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def presence(self, device: str) -> Presence | None:
        """Return what is known of a device, or None."""
        row = self._one(f"{_PRESENCE} WHERE device = ?", device)
        return None if row is None else _presence(row)

    def presences(self) -> list[Presence]:
        """Return what is known of every device."""
        return [_presence(row) for row in self._connection.execute(_PRESENCE)]

    def save_device(self, presence: Presence, frame: bytes) -> None:
        """Keep a device's newest state with its frame."""
        self._connection.execute(
            "INSERT OR REPLACE INTO devices (device, boot, seq, online, changed_s, frame)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                presence.device,
                presence.boot,
                presence.seq,
                presence.online,
                presence.seen_s,
                frame,
            ),
        )

    def device_frame(self, device: str) -> bytes | None:
        """Return the frame of a device's newest state, or None."""
        row = self._one("SELECT frame FROM devices WHERE device = ?", device)
        return None if row is None else bytes(row[0])

    def device_ids(self) -> list[str]:
        """Return the id of every known device, sorted."""
        rows = self._connection.execute("SELECT device FROM devices ORDER BY device")
        return [str(device) for (device,) in rows]

    def assignments(self) -> list[AssignmentRow]:
        """Return the current assignments, oldest first."""
        rows = self._connection.execute(f"{_ASSIGNMENT} ORDER BY received_s, rowid")
        return [_assignment(row) for row in rows]

    def assignment(self, key: Key) -> AssignmentRow | None:
        """Return one, or None."""
        row = self._one(f"{_ASSIGNMENT} WHERE task = ? AND round = ?", *key)
        return None if row is None else _assignment(row)

    def assignment_frame(self, key: Key) -> bytes | None:
        """Return central's frame of one, or None."""
        row = self._one("SELECT frame FROM assignments WHERE task = ? AND round = ?", *key)
        return None if row is None else bytes(row[0])

    def save_assignment(self, row: AssignmentRow, frame: bytes) -> None:
        """Keep an assignment; the same round's earlier frame is replaced."""
        self._connection.execute(
            "INSERT INTO assignments"
            " (task, round, cohort, deadline_s, model, received_s, frame, graph, deltas)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (task, round) DO UPDATE SET"
            " cohort = excluded.cohort, deadline_s = excluded.deadline_s,"
            " model = excluded.model, frame = excluded.frame, graph = excluded.graph,"
            " deltas = excluded.deltas",
            (
                *row.key,
                json.dumps(row.cohort),
                row.deadline_s,
                row.model.model_dump_json(),
                row.received_s,
                frame,
                None if row.graph is None else row.graph.model_dump_json(),
                _DELTAS.dump_json(row.deltas).decode() if row.deltas else None,
            ),
        )

    def drop_assignment(self, key: Key) -> None:
        """Forget an assignment and its statuses; an unknown one is no error."""
        self._connection.execute("DELETE FROM assignments WHERE task = ? AND round = ?", key)
        self._connection.execute("DELETE FROM statuses WHERE task = ? AND round = ?", key)

    def statuses(self) -> list[StatusRow]:
        """Return every stored status."""
        rows = self._connection.execute(
            "SELECT device, task, round, boot, seq, state, frame FROM statuses"
        )
        return [
            StatusRow(device, (task, number), (boot, seq), state, bytes(frame))
            for device, task, number, boot, seq, state, frame in rows
        ]

    def save_status(self, row: StatusRow) -> None:
        """Keep a device's newest status for a round."""
        self._connection.execute(
            "INSERT OR REPLACE INTO statuses (device, task, round, boot, seq, state, frame)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.device, *row.key, *row.order, row.state, row.frame),
        )

    def settlements(self) -> list[Settlement]:
        """Return the newest settlements, newest last."""
        rows = self._connection.execute("SELECT body FROM settlements ORDER BY number")
        return [Settlement.model_validate_json(body) for (body,) in rows]

    def save_settlement(self, settlement: Settlement) -> None:
        """Keep a settlement; only the newest few stay. Of two of a round the fuller one does."""
        self._connection.execute(
            "INSERT INTO settlements (task, round, body) VALUES (?, ?, ?)"
            " ON CONFLICT (task, round) DO UPDATE SET body = excluded.body"
            " WHERE length(excluded.body) > length(body)",
            (settlement.task, settlement.round, settlement.model_dump_json()),
        )
        self._connection.execute(
            "DELETE FROM settlements WHERE number <= (SELECT max(number) FROM settlements) - ?",
            (_SETTLEMENTS_KEPT,),
        )

    def final_receipt(self, xfer: str) -> FinalReceipt | None:
        """Return central's final receipt of a transfer, or None."""
        row = self._one("SELECT xfer, device, frame FROM receipts WHERE xfer = ?", xfer)
        return None if row is None else FinalReceipt(row[0], row[1], bytes(row[2]))

    def save_receipt(self, receipt: FinalReceipt, now_s: float) -> None:
        """Remember a final receipt."""
        self._connection.execute(
            "INSERT OR IGNORE INTO receipts (xfer, device, received_s, frame) VALUES (?, ?, ?, ?)",
            (receipt.xfer, receipt.device, now_s, receipt.frame),
        )

    def holds(self, xfer: str) -> bool:
        """Tell whether a transfer is in custody."""
        return self._one("SELECT 1 FROM outbox WHERE xfer = ?", xfer) is not None

    def objects_in_custody(self, among: Collection[str] | None = None) -> set[str]:
        """Return the SHA-256 of the objects that a custody row names."""
        if among is None:
            rows = self._connection.execute("SELECT DISTINCT sha256 FROM outbox")
            return {str(sha256) for (sha256,) in rows}
        query = "SELECT 1 FROM outbox WHERE sha256 = ? LIMIT 1"
        return {sha256 for sha256 in among if self._one(query, sha256) is not None}

    def purge(self, now_s: float) -> None:
        """Delete receipts and assignments after 7 days, devices that are gone."""
        for key in self._connection.execute(
            "SELECT task, round FROM assignments WHERE received_s < ?",
            (now_s - ASSIGNMENTS_KEPT_S,),
        ).fetchall():
            self.drop_assignment(key)
        self._delete("receipts", "received_s < ?", now_s - RECEIPTS_KEPT_S)
        self._delete("devices", "online = 0 AND changed_s < ?", now_s - DEVICES_KEPT_S)

    def _delete(self, table: str, condition: str, limit_s: float) -> None:
        found = self._one(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1", limit_s)  # noqa: S608
        if found is not None:
            self._connection.execute(f"DELETE FROM {table} WHERE {condition}", (limit_s,))  # noqa: S608

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return found


def _presence(row: tuple[Any, ...]) -> Presence:
    device, boot, seq, online, changed_s = row
    return Presence(str(device), int(boot), int(seq), bool(online), float(changed_s))


def _assignment(row: tuple[Any, ...]) -> AssignmentRow:
    task, number, cohort, deadline_s, model, received_s, graph, deltas = row
    return AssignmentRow(
        str(task),
        int(number),
        tuple(json.loads(str(cohort))),
        float(deadline_s),
        ObjectManifest.model_validate_json(str(model)),
        float(received_s),
        None if graph is None else ObjectManifest.model_validate_json(str(graph)),
        () if deltas is None else _DELTAS.validate_json(str(deltas)),
    )
