"""The agent's database: jobs, the outbox and the boot, which commit together."""

import sqlite3
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from device_agent.core.job import BEFORE_UPLOAD, ENDED, Job, JobKey, JobState, Refusal
from device_agent.core.quota import Owed
from device_agent.service.records import JobRecord, Outcome
from schemas.messages import LazyTerms, ModelDelta, ObjectManifest, TrainingPlan
from transport.database import adopt_boot, open_database
from transport.outbox import OUTBOX_SCHEMA

SCHEMA_VERSION = 6
DATABASE = "device.db"
#: What leads to each version from the one before.
MIGRATIONS = {
    2: "ALTER TABLE jobs ADD COLUMN receipt TEXT",
    3: "ALTER TABLE jobs ADD COLUMN graph TEXT; ALTER TABLE jobs ADD COLUMN graph_digests BLOB; "
    "CREATE INDEX jobs_created ON jobs (created_s)",
    4: "ALTER TABLE jobs ADD COLUMN reference INTEGER NOT NULL DEFAULT 0; "
    "ALTER TABLE jobs ADD COLUMN lazy TEXT; "
    "CREATE TABLE memories (task TEXT NOT NULL, round INTEGER NOT NULL, sha256 TEXT NOT NULL, "
    "payload BLOB, error REAL NOT NULL, clock INTEGER NOT NULL, mark TEXT NOT NULL, "
    "PRIMARY KEY (task, round))",
    5: "CREATE TABLE upload_times (number INTEGER PRIMARY KEY, "
    "size_bytes INTEGER NOT NULL, seconds REAL NOT NULL)",
    6: "ALTER TABLE jobs ADD COLUMN deltas TEXT; ALTER TABLE jobs ADD COLUMN delta_digests BLOB",
}

_COLUMNS = (
    "task, round, state, code, reason, starts, xfer, plan, model, digests, deadline_s, "
    "created_s, settled, receipt, graph, graph_digests, reference, lazy, deltas, delta_digests"
)
#: Jobs that are looked at for each job with a downlink.
_JOBS_A_MODEL = 8
_DELTAS = TypeAdapter(tuple[ModelDelta, ...])


def open_store(path: Path) -> sqlite3.Connection:
    """Open the agent's database, creating it when it is new; errors as ``open_database``."""
    schema = files("device_agent.adapters").joinpath("schema.sql").read_text(encoding="utf-8")
    return open_database(path, schema + OUTBOX_SCHEMA, SCHEMA_VERSION, MIGRATIONS)


class SqliteJobStore:
    """``JobStore`` on the agent's one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: JobKey) -> JobRecord | None:
        """Return one job, or None."""
        found = self._select("WHERE task = ? AND round = ?", (key.task, key.round))
        return found[0] if found else None

    def save(self, record: JobRecord) -> None:
        """Insert a job, or replace what is stored of it."""
        values = _row(record)
        marks = ", ".join("?" * len(values))
        self._connection.execute(
            f"INSERT OR REPLACE INTO jobs ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - constants
            values,
        )

    def active(self) -> list[JobRecord]:
        """Return the jobs whose update does not exist yet, oldest first."""
        states, values = _in(BEFORE_UPLOAD)
        return self._select(f"WHERE state IN ({states}) ORDER BY created_s, round", values)

    def unfinished(self, limit: int) -> list[JobKey]:
        """Return the jobs that have not ended, newest first."""
        states, values = _in(ENDED)
        rows = self._connection.execute(
            f"SELECT task, round FROM jobs WHERE state NOT IN ({states})"  # noqa: S608 - marks
            " ORDER BY created_s DESC, round DESC LIMIT ?",
            (*values, limit),
        )
        return [JobKey(task, number) for task, number in rows]

    def of_task(self, task: str) -> list[JobRecord]:
        """Return the jobs of a task that have not ended, oldest first."""
        states, values = _in(ENDED)
        where = f"WHERE task = ? AND state NOT IN ({states}) ORDER BY round"
        return self._select(where, (task, *values))

    def newest_round(self, task: str) -> int | None:
        """Return the newest round known of a task, ended or not."""
        query = "SELECT max(round) FROM jobs WHERE task = ?"
        (newest,) = self._connection.execute(query, (task,)).fetchone()
        return None if newest is None else int(newest)

    def bids_lost(self, task: str, before_round: int) -> int:
        """Return how many updates in a row, before a round of a task, were not accepted."""
        query = (
            "SELECT count(*) FROM jobs WHERE task = :task AND round < :round "
            "AND xfer IS NOT NULL AND round > (SELECT coalesce(max(round), -1) FROM jobs "
            "WHERE task = :task AND round < :round "
            "AND (receipt IN ('accepted', 'duplicate') OR settled = 'counted'))"
        )
        values = {"task": task, "round": before_round}
        (count,) = self._connection.execute(query, values).fetchone()
        return int(count)

    def settle(self, task: str, round_number: int, outcome: Outcome) -> None:
        """Note what became of an update; a job that is not known is no error."""
        self._connection.execute(
            "UPDATE jobs SET settled = ? WHERE task = ? AND round = ?",
            (outcome, task, round_number),
        )

    def unsettled(self, limit: int) -> list[JobKey]:
        """Return the delivered jobs of which it is not known what became, newest first."""
        rows = self._connection.execute(
            "SELECT task, round FROM jobs WHERE state = ? AND settled IS NULL"
            " ORDER BY created_s DESC, round DESC LIMIT ?",
            (JobState.DONE.value, limit),
        )
        return [JobKey(task, number) for task, number in rows]

    def newest_graphs(self, limit: int) -> list[ObjectManifest]:
        """Return the training graphs of the newest jobs, newest first, cancelled ones left out."""
        rows = self._connection.execute(
            "SELECT graph FROM jobs WHERE graph IS NOT NULL AND code IS NOT 'cancelled'"
            " ORDER BY created_s DESC LIMIT ?",
            (limit,),
        )
        distinct = dict.fromkeys(text for (text,) in rows)
        return [ObjectManifest.model_validate_json(text) for text in distinct]

    def newest_models(self, limit: int) -> list[tuple[str, ObjectManifest]]:
        """Return task and model of the newest jobs whose task sends deltas, newest first.

        Cancelled ones are left out, and what lies behind many jobs of other tasks: a month of jobs
        must not be read after each one.
        """
        rows = self._connection.execute(
            "SELECT task, model FROM (SELECT * FROM jobs ORDER BY created_s DESC LIMIT :jobs)"
            " WHERE json_extract(plan, '$.downlink') IS NOT NULL"
            " AND code IS NOT 'cancelled' ORDER BY created_s DESC, round DESC LIMIT :limit",
            {"limit": limit, "jobs": _JOBS_A_MODEL * limit},
        )
        return [(task, ObjectManifest.model_validate_json(text)) for task, text in rows]

    def offered_objects(self) -> frozenset[str]:
        """Return the SHA-256 of every object that an outbox row offers."""
        rows = self._connection.execute("SELECT sha256 FROM outbox")
        return frozenset(sha256 for (sha256,) in rows)

    def owed(self) -> list[Owed]:
        """Return the updates in the outbox, without their frames."""
        rows = self._connection.execute(
            "SELECT task, round, xfer, sha256, size, held, created_s FROM outbox"
        )
        return [
            Owed(JobKey(task, number), xfer, sha256, int(size), bool(held), float(created_s))
            for task, number, xfer, sha256, size, held, created_s in rows
        ]

    def forget_ended(self, before_s: float) -> int:
        """Remove ended jobs that came before ``before_s``; return how many."""
        states, values = _in(ENDED)
        return self._connection.execute(
            f"DELETE FROM jobs WHERE created_s < ? AND state IN ({states})",  # noqa: S608 - marks
            (before_s, *values),
        ).rowcount

    def _select(self, where: str, values: Iterable[object]) -> list[JobRecord]:
        query = f"SELECT {_COLUMNS} FROM jobs {where}"  # noqa: S608 - constants and marks
        return [_record(row) for row in self._connection.execute(query, tuple(values))]


class SqliteBoots:
    """``Boots`` on the agent's one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def adopt(self, newer: int) -> int:
        """Return the boot to go on with; see ``transport.database.adopt_boot``."""
        return adopt_boot(self._connection, newer)


def _in(states: Iterable[JobState]) -> tuple[str, list[str]]:
    values = sorted(state.value for state in states)
    return ", ".join("?" * len(values)), values


def _row(record: JobRecord) -> tuple[object, ...]:
    job = record.job
    return (
        job.key.task,
        job.key.round,
        job.state.value,
        job.cause.code if job.cause else None,
        job.cause.reason if job.cause else None,
        job.starts,
        job.xfer,
        record.plan.model_dump_json(),
        record.model.model_dump_json(),
        record.digests,
        record.deadline_s,
        record.created_s,
        record.settled,
        record.receipt,
        None if record.graph is None else record.graph.model_dump_json(),
        record.graph_digests,
        record.reference,
        None if record.lazy is None else record.lazy.model_dump_json(),
        _DELTAS.dump_json(record.deltas).decode() if record.deltas else None,
        record.delta_digests,
    )


def _record(row: tuple[Any, ...]) -> JobRecord:
    task, number, state, code, reason, starts, xfer, plan, model, *rest = row
    digests, deadline_s, created_s, settled, receipt, *more = rest
    graph, graph_digests, reference, lazy, deltas, delta_digests = more
    cause = None if code is None else Refusal(code, reason)
    return JobRecord(
        job=Job(JobKey(task, number), JobState(state), cause, starts, xfer),
        plan=TrainingPlan.model_validate_json(plan),
        model=ObjectManifest.model_validate_json(model),
        digests=digests,
        deadline_s=deadline_s,
        created_s=created_s,
        settled=settled,
        receipt=receipt,
        graph=None if graph is None else ObjectManifest.model_validate_json(graph),
        graph_digests=graph_digests or b"",
        reference=int(reference),
        lazy=None if lazy is None else LazyTerms.model_validate_json(lazy),
        deltas=_DELTAS.validate_json(deltas) if deltas else (),
        delta_digests=delta_digests or b"",
    )
