"""Central's tables in SQLite; every method runs in the transaction that the caller has open."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from importlib import resources

from central.adapters.rows import (
    CONTRIBUTION_COLUMNS,
    ROUND_COLUMNS,
    TASK_COLUMNS,
    contribution_of,
    contribution_row,
    device_of,
    gateway_of,
    round_of,
    round_row,
    task_of,
    task_row,
)
from central.core.traffic import Counted
from central.service.records import (
    ContributionRecord,
    DeviceRecord,
    GatewayRecord,
    Refusal,
    RestoreRecord,
    RoundRecord,
    TaskRecord,
)
from schemas.ids import contribution_mark

SCHEMA = resources.files("central.adapters").joinpath("schema.sql").read_text(encoding="utf-8")
SCHEMA_VERSION = 7
DATABASE = "central.db"
#: What leads to a version from the one before it.
MIGRATIONS = {
    2: "CREATE TABLE restores (at_s REAL NOT NULL, backup_s REAL NOT NULL, "
    "epoch INTEGER NOT NULL, handled INTEGER NOT NULL DEFAULT 0) STRICT",
    3: "ALTER TABLE tasks ADD COLUMN graph_sha256 TEXT; "
    "CREATE INDEX tasks_by_graph ON tasks (graph_sha256)",
    4: "ALTER TABLE tasks ADD COLUMN lazy TEXT; "
    "ALTER TABLE contributions ADD COLUMN reference INTEGER NOT NULL DEFAULT 0; "
    "CREATE INDEX contributions_counted ON contributions (task, device, round) "
    "WHERE settled = 'counted'; "
    "CREATE INDEX rounds_committed ON rounds (task, round) WHERE model_sha256 IS NOT NULL",
    5: "ALTER TABLE contributions ADD COLUMN uplink_wire_bytes INTEGER NOT NULL DEFAULT 0; "
    "ALTER TABLE contributions ADD COLUMN downlink_wire_bytes INTEGER NOT NULL DEFAULT 0; "
    "CREATE TABLE traffic (device TEXT PRIMARY KEY, boot INTEGER NOT NULL, "
    "sent_bytes INTEGER NOT NULL, received_bytes INTEGER NOT NULL) STRICT",
    6: "ALTER TABLE contributions ADD COLUMN codec TEXT; "
    "ALTER TABLE contributions ADD COLUMN codec_params TEXT",
    7: "ALTER TABLE rounds ADD COLUMN delta_sha256 TEXT; "
    "ALTER TABLE rounds ADD COLUMN delta_bytes INTEGER NOT NULL DEFAULT 0; "
    "CREATE INDEX rounds_by_delta ON rounds (delta_sha256)",
}


class SqliteStore:
    """The port ``Store`` over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def task(self, task: str) -> TaskRecord | None:
        """Return one task."""
        found = self._tasks("WHERE task = ?", (task,))
        return found[0] if found else None

    def live_tasks(self) -> list[TaskRecord]:
        """Return the tasks that have not ended, oldest first."""
        return self._tasks("WHERE ended_s IS NULL ORDER BY created_s, task")

    def ended_tasks(self) -> list[TaskRecord]:
        """Return the tasks that have ended, oldest first."""
        return self._tasks("WHERE ended_s IS NOT NULL ORDER BY ended_s, task")

    def tasks_since(self, ended_s: float) -> list[TaskRecord]:
        """Return the tasks that have not ended or have since a time, oldest first."""
        return self._tasks("WHERE ended_s IS NULL OR ended_s > ? ORDER BY created_s", (ended_s,))

    def save_task(self, record: TaskRecord) -> None:
        """Insert or replace one task; its strategy's state is kept."""
        graph = record.plan.graph_sha256 if record.plan else None
        columns = f"{TASK_COLUMNS}, graph_sha256"
        self._db.execute(_upsert("tasks", columns, "task"), (*task_row(record), graph))

    def strategy_state(self, task: str) -> bytes | None:
        """Return the strategy's stored state."""
        row = self._db.execute("SELECT strategy_state FROM tasks WHERE task = ?", (task,))
        found = row.fetchone()
        return found[0] if found else None

    def save_strategy_state(self, task: str, state: bytes) -> None:
        """Store the strategy's state."""
        self._db.execute("UPDATE tasks SET strategy_state = ? WHERE task = ?", (state, task))

    def round(self, task: str, number: int) -> RoundRecord | None:
        """Return one round."""
        found = self._rounds("WHERE task = ? AND round = ?", (task, number))
        return found[0] if found else None

    def ended_rounds(self, task: str, limit: int) -> list[RoundRecord]:
        """Return the newest ended rounds of a task, oldest first."""
        tail = "WHERE task = ? AND ended_s IS NOT NULL ORDER BY round DESC LIMIT ?"
        return self._rounds(tail, (task, limit))[::-1]

    def save_round(self, record: RoundRecord) -> None:
        """Insert or replace one round."""
        sql = _upsert("rounds", f"{ROUND_COLUMNS}, round", "task, round")
        self._db.execute(sql, (*round_row(record), record.state.number))

    def newest_deltas(self, task: str, before: int, limit: int) -> list[RoundRecord]:
        """Return a task's newest rounds below a number that gave a delta, newest first."""
        tail = (
            "WHERE task = ? AND round < ? AND delta_sha256 IS NOT NULL ORDER BY round DESC LIMIT ?"
        )
        return self._rounds(tail, (task, before, limit))

    def add_contribution(self, record: ContributionRecord) -> bool:
        """Insert one; False when (task, round, device) has one already."""
        key, values = (record.task, record.round, record.device), contribution_row(record)
        cursor = self._db.execute(
            f"INSERT OR IGNORE INTO contributions ({CONTRIBUTION_COLUMNS}) "  # noqa: S608
            f"VALUES ({', '.join('?' * len(values))})",
            values,
        )
        if cursor.rowcount == 1 and record.payload is not None:
            self._db.execute("INSERT INTO payloads VALUES (?, ?, ?, ?)", (*key, record.payload))
        return cursor.rowcount == 1

    def traffic(self, device: str) -> Counted | None:
        """Return up to where a device's bytes are counted."""
        row = self._db.execute(
            "SELECT boot, sent_bytes, received_bytes FROM traffic WHERE device = ?", (device,)
        ).fetchone()
        return Counted(*row) if row else None

    def save_traffic(self, device: str, counted: Counted) -> None:
        """Store up to where a device's bytes are counted."""
        self._db.execute(
            "INSERT OR REPLACE INTO traffic VALUES (?, ?, ?, ?)",
            (device, counted.boot, counted.sent_bytes, counted.received_bytes),
        )

    def contribution(self, task: str, number: int, device: str) -> ContributionRecord | None:
        """Return one contribution, without its payload."""
        tail = "WHERE task = ? AND round = ? AND device = ?"
        found = self._contributions(tail, (task, number, device))
        return found[0] if found else None

    def contributions(self, task: str, number: int) -> list[ContributionRecord]:
        """Return a round's contributions in device order, without payloads."""
        tail = "WHERE task = ? AND round = ? ORDER BY device"
        return self._contributions(tail, (task, number))

    def references(
        self, task: str, devices: Iterable[str], reach: int
    ) -> dict[str, tuple[int, str]]:
        """Return the last counted round of each of these devices that has one, and its mark.

        Args:
            task: The task.
            devices: Their ids.
            reach: How many committed rounds are looked back at.
        """
        rows = self._db.execute(
            "SELECT name.value, max(one.round), one.xfer, one.reference "
            "FROM json_each(:devices) AS name "
            "JOIN contributions AS one ON one.task = :task AND one.device = name.value "
            "AND one.settled = 'counted' AND one.round >= ("
            "SELECT min(round) FROM (SELECT round FROM rounds WHERE task = :task "
            "AND model_sha256 IS NOT NULL ORDER BY round DESC LIMIT :reach)) "
            "GROUP BY name.value",
            {"task": task, "devices": json.dumps(sorted(devices)), "reach": reach},
        )  # columns beside max() are those of its row: https://sqlite.org/lang_select.html#bareagg
        return {
            device: (number, contribution_mark(xfer, built_on))
            for device, number, xfer, built_on in rows.fetchall()
        }

    def settle(self, task: str, number: int, counted: Iterable[str], reason: str) -> None:
        """Mark these devices' contributions counted, and all others of the round discarded."""
        names = json.dumps(sorted(counted))
        self._db.execute(
            "UPDATE contributions SET "
            "settled = iif(device IN (SELECT value FROM json_each(:names)), 'counted', "
            "'discarded'), "
            "reason = iif(device IN (SELECT value FROM json_each(:names)), NULL, :reason) "
            "WHERE task = :task AND round = :round",
            {"names": names, "reason": reason, "task": task, "round": number},
        )

    def refusal(self, xfer: str) -> Refusal | None:
        """Return the final no to a transfer, if there was one."""
        row = self._db.execute(
            "SELECT xfer, task, round, device, status, code, detail, at_s "
            "FROM refusals WHERE xfer = ?",
            (xfer,),
        ).fetchone()
        return Refusal(*row) if row else None

    def add_refusal(self, refusal: Refusal) -> bool:
        """Remember a final no; False when it is known."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                refusal.xfer,
                refusal.task,
                refusal.round,
                refusal.device,
                refusal.status,
                refusal.code,
                refusal.detail,
                refusal.at_s,
            ),
        )
        return cursor.rowcount == 1

    def late(self, task: str, number: int) -> int:
        """Return how many updates came too late for a round; over its budget is not too late."""
        row = self._db.execute(
            "SELECT count(*) FROM refusals WHERE task = ? AND round = ? AND status = 'late' "
            "AND code IS NOT 'E_BUDGET'",
            (task, number),
        ).fetchone()
        return int(row[0])

    def unwilling(self, task: str) -> Mapping[str, str]:
        """Return the devices that are not asked again for a task, and why."""
        rows = self._db.execute("SELECT device, why FROM unwilling WHERE task = ?", (task,))
        return dict(rows.fetchall())

    def add_unwilling(self, task: str, device: str, why: str) -> None:
        """Remember that a device is not to be asked again for a task."""
        self._db.execute("INSERT OR REPLACE INTO unwilling VALUES (?, ?, ?)", (task, device, why))

    def device(self, device: str) -> DeviceRecord | None:
        """Return one device."""
        found = self._devices("WHERE device = ?", (device,))
        return found[0] if found else None

    def devices(self) -> list[DeviceRecord]:
        """Return every device, by id."""
        return self._devices("ORDER BY device")

    def whereabouts(self) -> list[tuple[str, str, bool]]:
        """Return every device's id, its region and whether it said to be online."""
        rows = self._db.execute("SELECT device, region, is_online FROM devices")
        return [(device, region, bool(is_online)) for device, region, is_online in rows]

    def save_device(self, record: DeviceRecord) -> None:
        """Insert or replace one device."""
        self._db.execute(
            "INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                record.device,
                record.region,
                record.boot,
                record.seq,
                record.is_online,
                record.state.model_dump_json(),
                record.changed_s,
            ),
        )

    def gateway(self, region: str) -> GatewayRecord | None:
        """Return one gateway."""
        found = self._gateways("WHERE region = ?", (region,))
        return found[0] if found else None

    def gateways(self) -> list[GatewayRecord]:
        """Return every gateway, by region."""
        return self._gateways("ORDER BY region")

    def save_gateway(self, record: GatewayRecord) -> None:
        """Insert or replace one gateway."""
        self._db.execute(
            "INSERT OR REPLACE INTO gateways VALUES (?, ?, ?, ?, ?, ?)",
            (
                record.region,
                record.boot,
                record.seq,
                record.is_online,
                record.state.model_dump_json(),
                record.changed_s,
            ),
        )

    def is_model(self, sha256: str) -> bool:
        """Tell whether an object is a task's model or graph, a round's base or its delta."""
        found = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM tasks WHERE model_sha256 = ?) "
            "OR EXISTS (SELECT 1 FROM tasks WHERE graph_sha256 = ?) "
            "OR EXISTS (SELECT 1 FROM rounds WHERE base_model_sha256 = ?) "
            "OR EXISTS (SELECT 1 FROM rounds WHERE delta_sha256 = ?)",
            (sha256,) * 4,
        ).fetchone()
        return bool(found[0])

    def open_restore(self) -> RestoreRecord | None:
        """Return the newest restore that central has not dealt with, if there is one."""
        row = self._db.execute(
            "SELECT at_s, backup_s, epoch FROM restores WHERE handled = 0 "
            "ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        return RestoreRecord(*row) if row else None

    def close_restores(self) -> None:
        """Note that central has dealt with every restore."""
        self._db.execute("UPDATE restores SET handled = 1 WHERE handled = 0")

    def epoch(self) -> int:
        """Return the number of the newest restore; 0: this database was never restored."""
        (epoch,) = self._db.execute("SELECT max(epoch) FROM restores").fetchone()
        return int(epoch or 0)

    def purge(self, before_s: float) -> list[str]:
        """Delete tasks that ended before a time; return the objects that they named.

        With them go refusals of tasks that never were, and devices that are long gone.
        """
        old = "SELECT task FROM tasks WHERE ended_s < ?"
        named = self._db.execute(
            f"SELECT model_sha256 FROM tasks WHERE task IN ({old}) "  # noqa: S608
            f"UNION SELECT graph_sha256 FROM tasks WHERE task IN ({old}) "
            f"UNION SELECT base_model_sha256 FROM rounds WHERE task IN ({old}) "
            f"UNION SELECT model_sha256 FROM rounds WHERE task IN ({old}) "
            f"UNION SELECT delta_sha256 FROM rounds WHERE task IN ({old}) "
            f"UNION SELECT sha256 FROM contributions WHERE task IN ({old})",
            (before_s,) * 6,
        ).fetchall()
        for table in ("refusals", "unwilling"):
            self._db.execute(f"DELETE FROM {table} WHERE task IN ({old})", (before_s,))  # noqa: S608
        self._db.execute("DELETE FROM tasks WHERE ended_s < ?", (before_s,))
        self._db.execute(
            "DELETE FROM refusals WHERE at_s < ? AND task NOT IN (SELECT task FROM tasks)",
            (before_s,),
        )
        self._db.execute("DELETE FROM devices WHERE is_online = 0 AND changed_s < ?", (before_s,))
        self._db.execute("DELETE FROM traffic WHERE device NOT IN (SELECT device FROM devices)")
        return [sha256 for (sha256,) in named if sha256]

    def is_referred_to(self, sha256: str) -> bool:
        """Tell whether a task, a round or a contribution names an object."""
        found = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM rounds WHERE model_sha256 = ?) "
            "OR EXISTS (SELECT 1 FROM contributions WHERE sha256 = ?)",
            (sha256, sha256),
        ).fetchone()
        return bool(found[0]) or self.is_model(sha256)

    def _tasks(self, tail: str, values: tuple[object, ...] = ()) -> list[TaskRecord]:
        rows = self._db.execute(f"SELECT {TASK_COLUMNS} FROM tasks {tail}", values)  # noqa: S608
        return [task_of(row) for row in rows.fetchall()]

    def _rounds(self, tail: str, values: tuple[object, ...]) -> list[RoundRecord]:
        rows = self._db.execute(f"SELECT {ROUND_COLUMNS} FROM rounds {tail}", values)  # noqa: S608
        return [round_of(row) for row in rows.fetchall()]

    def _contributions(self, tail: str, values: tuple[object, ...]) -> list[ContributionRecord]:
        sql = f"SELECT {CONTRIBUTION_COLUMNS} FROM contributions {tail}"  # noqa: S608
        return [contribution_of(row) for row in self._db.execute(sql, values).fetchall()]

    def _devices(self, tail: str, values: tuple[object, ...] = ()) -> list[DeviceRecord]:
        rows = self._db.execute(f"SELECT * FROM devices {tail}", values)  # noqa: S608
        return [device_of(row) for row in rows.fetchall()]

    def _gateways(self, tail: str, values: tuple[object, ...] = ()) -> list[GatewayRecord]:
        rows = self._db.execute(f"SELECT * FROM gateways {tail}", values)  # noqa: S608
        return [gateway_of(row) for row in rows.fetchall()]


def _upsert(table: str, columns: str, key: str) -> str:
    names = [name.strip() for name in columns.split(",")]
    keys = {name.strip() for name in key.split(",")}
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    marks = ", ".join("?" * len(names))
    return (
        f"INSERT INTO {table} ({columns}) VALUES ({marks}) "  # noqa: S608
        f"ON CONFLICT ({key}) DO UPDATE SET {updates}"
    )
