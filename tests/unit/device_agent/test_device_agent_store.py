"""The device's database over versions of the program."""

import sqlite3
from contextlib import closing
from dataclasses import replace

from device_agent_bench import TASK, Bench, offered

from device_agent.adapters.store import SqliteJobStore, open_store
from device_agent.core.job import JobKey

_TO_VERSION_2 = (
    "DROP TABLE upload_times; DROP TABLE memories; ALTER TABLE jobs DROP COLUMN reference;"
    "ALTER TABLE jobs DROP COLUMN lazy;"
    "DROP INDEX jobs_created; ALTER TABLE jobs DROP COLUMN graph;"
    "ALTER TABLE jobs DROP COLUMN graph_digests; ALTER TABLE jobs DROP COLUMN deltas;"
    "ALTER TABLE jobs DROP COLUMN delta_digests; PRAGMA user_version = 2"
)
_TO_VERSION_1 = f"{_TO_VERSION_2}; ALTER TABLE jobs DROP COLUMN receipt; PRAGMA user_version = 1"


def columns(path):
    with closing(sqlite3.connect(path)) as database:
        return [row[1:] for row in database.execute("PRAGMA table_info(jobs)")]


def test_a_database_of_version_1_keeps_its_jobs_and_takes_receipts(tmp_path):
    bench = Bench(tmp_path)
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.connection.executescript(_TO_VERSION_1)
    bench = bench.reborn()
    assert bench.state() == "uploading"
    assert bench.store.get(JobKey(TASK, 1)).receipt is None
    bench.receipt(manifest, "late")
    assert bench.store.get(JobKey(TASK, 1)).receipt == "late"


def test_a_database_that_was_brought_up_to_date_is_as_a_new_one(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    for path in (old, new):
        open_store(path).close()
    with closing(sqlite3.connect(old)) as database:
        database.executescript(_TO_VERSION_1)
    assert columns(old) != columns(new)
    with closing(open_store(old)) as database:
        assert SqliteJobStore(database).active() == []
    assert columns(old) == columns(new)


def steps_of(bench, jobs):
    """Return about how many steps SQLite takes to find the newest models among so many jobs."""
    record = bench.store.get(JobKey(TASK, 1))
    for number in range(2, jobs):
        later = replace(record.job, key=JobKey("other", number))
        bench.store.save(replace(record, job=later, created_s=record.created_s + number))
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    bench.connection.set_progress_handler(count, 100)
    assert bench.store.newest_models(32) == []
    bench.connection.set_progress_handler(None, 0)
    return steps


def test_the_models_to_keep_are_found_without_reading_a_month_of_jobs(tmp_path):
    found = []
    for jobs in (300, 3000):
        bench = Bench(tmp_path / str(jobs))
        bench.assign()
        found.append(steps_of(bench, jobs))
    assert 0 < found[1] <= 1.2 * found[0]
