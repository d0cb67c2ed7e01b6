"""Central on a database that comes from a backup: what it forgot is lost with a reason."""

import sqlite3

import pytest

from central.adapters.audit import Forgotten, _numbers
from central.adapters.restores import mark_restored
from central.adapters.store import MIGRATIONS, SCHEMA, SCHEMA_VERSION, SqliteStore
from central.core.tasks import LostRounds
from tests.support.central_fixture import CentralRig
from transport.database import open_database, transaction

BACKUP_S = 1_700_000_000.0
SAID = "central was restored from a backup of 2023-11-14 22:13:20 UTC"
LOST = 1_000_001


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path)
    made.fleet("a", "b", "c")
    yield made
    made.connection.close()


def copy_of(rig):
    copy = sqlite3.connect(":memory:")
    rig.connection.backup(copy)
    return copy


def put_back(rig, copy, **more):
    """Give central the database of an earlier moment, marked as a restore marks it."""
    with rig.connection as connection:
        copy.backup(connection)
        mark_restored(connection, BACKUP_S, rig.now_s, **more)
    rig.published.clear()
    rig.worker.waiting.clear()
    rig.restart()


def open_round(rig, rounds=3):
    rig.submit(task="t", rounds=rounds)
    rig.work()
    return rig.newest()


def run_round(rig):
    assignment = rig.newest()
    for device in ("a", "b"):
        assert rig.update(device, assignment).status == "accepted"
    rig.work()
    return assignment.round


def test_an_open_round_is_abandoned_and_the_task_completes_in_a_later_million(rig):
    first = open_round(rig)
    rig.update("a", first)
    copy = copy_of(rig)
    assert rig.update("b", first).status == "accepted"
    rig.work()
    forgotten = rig.newest()
    assert forgotten.round == 2
    lost = rig.update("a", forgotten)
    assert lost.status == "accepted"

    put_back(rig, copy)
    row = rig.store.contribution("t", 1, "a")
    assert (row.settled, row.reason) == ("discarded", SAID)
    rig.tick(1)
    again = rig.newest()
    assert again.round == LOST
    assert [(s.round, s.discarded, s.reason) for s in again.settled] == [(1, ("a",), SAID)]
    assert [run_round(rig) for _ in range(3)] == [LOST, LOST + 1, LOST + 2]
    status = rig.status("t")
    assert (status.state, status.committed, status.abandoned) == ("completed", 3, 1)
    told = [(ended.round, ended.outcome, ended.reason) for ended in status.history]
    assert told[:2] == [
        (1, "abandoned", SAID),
        (2, "abandoned", f"rounds 2 to 1000000 are unknown: {SAID}"),
    ]
    assert [outcome for _, outcome, _ in told[2:]] == ["committed"] * 3


def test_an_update_of_a_lost_round_is_late_once_and_for_all(rig):
    first = open_round(rig)
    copy = copy_of(rig)
    run_round(rig)
    forgotten = rig.newest()
    put_back(rig, copy)
    for _ in range(2):
        receipt = rig.update("a", forgotten)
        assert (receipt.status, receipt.code) == ("late", "E_LATE")
        assert SAID in receipt.detail
    (count,) = rig.connection.execute("SELECT count(*) FROM refusals").fetchone()
    assert count == 1
    assert rig.status("t").late == 1
    never = rig.update("a", first, round=LOST + 500)
    assert (never.status, never.code) == ("rejected", "E_UNKNOWN_TASK")


def test_a_round_that_was_closed_in_the_backup_is_not_aggregated(rig):
    first = open_round(rig)
    rig.update("a", first)
    rig.update("b", first)
    copy = copy_of(rig)
    assert rig.worker.waiting
    put_back(rig, copy)
    assert not any(type(job).__name__ == "AggregateRound" for job in rig.worker.waiting)
    assert {row.settled for row in rig.store.contributions("t", 1)} == {"discarded"}
    rig.tick(1)
    assert rig.newest().round == LOST


def test_a_tick_that_comes_before_the_connection_opens_no_forgotten_number(rig):
    open_round(rig)
    rig.update("a", rig.newest())
    rig.update("b", rig.newest())
    aggregated = rig.worker.jobs.work(rig.worker.waiting.pop())
    rig.event(aggregated)
    copy = copy_of(rig)
    with rig.connection as connection:
        copy.backup(connection)
        mark_restored(connection, BACKUP_S, rig.now_s)
    rig.connection.close()
    rig.published.clear()
    event, rig.event = rig.event, lambda _: None
    rig.start()
    rig.event = event
    rig.tick(1)
    assert [assignment.round for assignment in rig.assignments()] == [LOST]


def test_what_was_undone_with_its_transaction_is_done_again(rig):
    open_round(rig)
    copy = copy_of(rig)
    with rig.connection as connection:
        copy.backup(connection)
        mark_restored(connection, BACKUP_S, rig.now_s)
    handler = rig.handler
    handler._restored._is_over = False
    rig.connection.execute("BEGIN")
    list(handler.tick(rig.now_s))
    assert rig.store.open_restore() is None
    rig.connection.execute("ROLLBACK")
    handler.after_commit()
    assert rig.store.open_restore() is not None
    rig.tick(1)
    assert rig.store.open_restore() is None
    assert rig.newest().round == LOST


def test_a_task_that_a_person_hands_in_again_after_a_restore_reuses_no_number(rig):
    copy = copy_of(rig)
    assert open_round(rig).round == 1
    put_back(rig, copy)
    assert rig.store.task("t") is None
    assert open_round(rig).round == LOST


def test_restoring_twice_takes_two_millions_when_the_first_one_is_known(rig):
    open_round(rig)
    copy = copy_of(rig)
    put_back(rig, copy)
    rig.tick(1)
    assert rig.newest().round == LOST
    put_back(rig, copy, above_epoch=1)
    rig.tick(1)
    assert rig.newest().round == 2_000_001
    assert rig.store.epoch() == 2


def test_a_database_that_was_never_restored_goes_on_as_it_was(rig):
    first = open_round(rig)
    rig.restart()
    rig.tick(1)
    assert rig.store.round("t", first.round).ended_s is None
    assert rig.store.epoch() == 0


_TO_VERSION_1 = (
    "DROP INDEX rounds_by_delta; ALTER TABLE rounds DROP COLUMN delta_sha256; "
    "ALTER TABLE rounds DROP COLUMN delta_bytes; "
    "DROP INDEX contributions_counted; DROP INDEX rounds_committed; "
    "ALTER TABLE contributions DROP COLUMN codec; "
    "ALTER TABLE contributions DROP COLUMN codec_params; "
    "DROP TABLE traffic; ALTER TABLE contributions DROP COLUMN uplink_wire_bytes; "
    "ALTER TABLE contributions DROP COLUMN downlink_wire_bytes; "
    "ALTER TABLE contributions DROP COLUMN reference; ALTER TABLE tasks DROP COLUMN lazy; "
    "DROP INDEX tasks_by_graph; ALTER TABLE tasks DROP COLUMN graph_sha256; "
    "DROP TABLE restores; PRAGMA user_version = 1"
)


def test_a_database_of_the_first_version_gets_the_table(tmp_path):
    path = tmp_path / "central.db"
    old = open_database(path, SCHEMA, SCHEMA_VERSION)
    old.executescript(_TO_VERSION_1)
    old.close()
    new = open_database(path, SCHEMA, SCHEMA_VERSION, MIGRATIONS)
    fresh = open_database(tmp_path / "fresh.db", SCHEMA, SCHEMA_VERSION, MIGRATIONS)
    for table in ("restores", "tasks", "rounds", "contributions", "traffic"):
        columns = f"SELECT name, type, \"notnull\" FROM pragma_table_info('{table}')"
        assert new.execute(columns).fetchall() == fresh.execute(columns).fetchall()
    indexes = "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name"
    assert new.execute(indexes).fetchall() == fresh.execute(indexes).fetchall()
    with transaction(new):
        mark_restored(new, BACKUP_S, BACKUP_S + 1)
    assert SqliteStore(new).epoch() == 1
    new.close()
    fresh.close()


def test_an_audit_expects_the_numbers_that_a_restore_leaves():
    lost = (LostRounds(4, 1_000_000, "restored"), LostRounds(1_000_003, 2_000_000, "again"))
    assert _numbers((), 3) == [1, 2, 3]
    assert _numbers((), 2, 3_000_001) == [3_000_001, 3_000_002]
    assert _numbers(lost, 6) == [1, 2, 3, 1_000_001, 1_000_002, 2_000_001]


def test_only_declared_rounds_are_forgotten():
    lost = {"t": (LostRounds(4, 1_000_000, "restored"),)}
    forgotten = Forgotten(1, frozenset({("t", 3)}), lost)
    held = [number for number in (2, 3, 4, 1_000_000, 1_000_001) if forgotten.holds("t", number)]
    assert held == [3, 4, 1_000_000]
    assert not forgotten.holds("other", 4)
