"""The audit finds what is wrong with books, whoever has written them."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from click.testing import CliRunner

from device_agent.adapters.store import SqliteJobStore, open_store
from device_agent.core.job import Job, JobKey, JobState
from device_agent.service.records import JobRecord
from fedfleet.cli import cli
from regional_gateway.adapters import store as gateway_store
from schemas.ids import transfer_id
from schemas.messages import Receipt
from tests.support.central_fixture import CentralRig
from transport.database import open_database, transaction
from transport.frames import FrameWriter

TASK = "t"


@pytest.fixture
def central(tmp_path):
    """A finished task: a and b in both rounds; c is late for the first."""
    rig = CentralRig(tmp_path / "central")
    rig.fleet("a", "b", "c")
    rig.submit(task=TASK, codec="int8", rounds=2, cohort=3)
    rig.work()
    first = rig.newest()
    rig.update("a", first, 1.0, 30)
    rig.update("b", first, 5.0, 10)
    assert rig.update("c", first, 2.0, 10).status == "late"
    rig.work()
    second = rig.newest()
    rig.update("a", second, 3.0, 30)
    rig.update("b", second, 4.0, 10)
    rig.work()
    assert rig.status(TASK).state == "completed"
    yield rig
    rig.connection.close()


def change(rig, sql, *values):
    with closing(sqlite3.connect(rig.root / "central.db")) as database:
        assert database.execute(sql, values).rowcount > 0
        database.commit()


def audit(rig, *arguments):
    result = CliRunner().invoke(
        cli, ["audit", "--state-dir", str(rig.root), "--json", *map(str, arguments)]
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout) if result.stdout else result.stderr


def findings(rig, *arguments):
    code, found = audit(rig, *arguments)
    assert code == 1
    assert not found["holds"]
    return " | ".join(found["findings"])


def test_books_that_are_right_hold(central):
    code, found = audit(central)
    assert code == 0
    (task,) = found["tasks"]
    assert (task["accepted"], task["counted"], task["open"]) == (4, 4, 0)
    assert task["refused"] == {"late E_LATE": 1}
    assert (found["lost"], found["double"], found["findings"]) == (0, 0, [])
    newest = central.status(TASK).model_sha256
    assert list(task["recomputed"]) == ["1", "2"]
    assert task["recomputed"]["2"] == newest


def test_an_open_round_is_no_fault(tmp_path):
    rig = CentralRig(tmp_path)
    rig.fleet("a", "b", "c")
    rig.submit(task=TASK, codec="raw-f32", rounds=2, cohort=3)
    rig.work()
    rig.update("a", rig.newest())
    code, found = audit(rig)
    rig.connection.close()
    assert code == 0
    assert (found["tasks"][0]["open"], found["tasks"][0]["state"]) == (1, "running")


def test_an_abandoned_round_discards_with_its_reason(tmp_path):
    rig = CentralRig(tmp_path)
    rig.fleet("a", "b")
    rig.submit(task=TASK, codec="raw-f32", rounds=1, cohort=2, on_shortfall="abandon")
    rig.work()
    job = rig.newest()
    rig.update("a", job)
    rig.job("b", job, "failed", code="training", reason="no")
    rig.tick()
    code, found = audit(rig)
    rig.connection.close()
    assert code == 0
    (task,) = found["tasks"]
    assert (task["abandoned"], task["counted"]) == (1, 0)
    assert list(task["discarded"].values()) == [1]


def test_a_users_own_strategy_is_aggregated_again_from_its_settings(tmp_path):
    rig = CentralRig(tmp_path / "central")
    rig.fleet("a", "b")
    rig.submit(task=TASK, codec="raw-f32", rounds=1, cohort=2, strategy="mine")
    rig.work()
    job = rig.newest()
    rig.update("a", job, 1.0)
    rig.update("b", job, 3.0)
    rig.work()
    rig.connection.close()
    assert "'mine' is not known" in findings(rig)
    config = tmp_path / "central.toml"
    config.write_text('[strategies]\nmine = "central.core.strategies.fedavg:FedAvg"\n')
    assert audit(rig, "--config", config)[0] == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM contributions WHERE round = 1 AND device = 'b'", "in the model, not marked"),
        ("UPDATE contributions SET settled = NULL WHERE device = 'b'", "neither counted nor"),
        (
            "UPDATE contributions SET settled = 'discarded' WHERE device = 'b'",
            "neither counted nor discarded with a reason",
        ),
        ("UPDATE rounds SET contributors = '[\"a\"]' WHERE round = 1", "its model lacks it"),
        (
            'UPDATE rounds SET contributors = \'["a", "a", "b"]\' WHERE round = 1',
            "is there more than once",
        ),
        ("UPDATE contributions SET num_examples = 11 WHERE device = 'b'", "aggregated again"),
        ("UPDATE payloads SET payload = zeroblob(20) WHERE device = 'b'", "not those of its"),
        (
            "UPDATE rounds SET state = json_set(state, '$.number', 7) WHERE round = 2",
            "must be [1, 2]",
        ),
        (
            "UPDATE rounds SET base_model_sha256 = model_sha256 WHERE round = 2",
            "the model was",
        ),
        (
            "UPDATE tasks SET model_sha256 = (SELECT base_model_sha256 FROM rounds LIMIT 1)",
            "its rounds give",
        ),
        ("DELETE FROM refusals", "updates late: central says 1, its tables give 0"),
        (
            "UPDATE refusals SET xfer = (SELECT xfer FROM contributions LIMIT 1)",
            "is accepted and refused",
        ),
    ],
)
def test_books_that_are_wrong_are_found_out(central, sql, said):
    change(central, sql)
    assert said in findings(central)


def test_an_update_whose_file_is_gone_is_found_out(central):
    change(central, "DELETE FROM payloads WHERE round = 2 AND device = 'a'")
    assert "round 2, a: its bytes cannot be read" in findings(central)


# -- devices and gateways ------------------------------------------------------------------


def xfer_of(rig, device, number):
    row = rig.connection.execute(
        "SELECT xfer FROM contributions WHERE device = ? AND round = ?", (device, number)
    ).fetchone()
    return row[0]


def device(folder, assignment, *jobs):
    """Write a device's database with (round, xfer, receipt, settled) each."""
    folder.mkdir()
    with closing(open_store(folder / "device.db")) as database, transaction(database):
        for number, xfer, receipt, settled in jobs:
            record = JobRecord(
                Job(JobKey(TASK, number), JobState.DONE, xfer=xfer),
                assignment.plan,
                assignment.model,
                b"",
                0.0,
                0.0,
                settled,
                receipt,
            )
            SqliteJobStore(database).save(record)
    return folder


STRANGE = transfer_id("a", TASK, 1, "0" * 64)


def test_receipts_that_are_in_centrals_tables_hold(central, tmp_path):
    jobs = [
        (1, xfer_of(central, "a", 1), "accepted", "counted"),
        (2, xfer_of(central, "a", 2), "duplicate", None),
        (3, STRANGE, None, None),
    ]
    folder = device(tmp_path / "a", central.newest(), *jobs)
    code, found = audit(central, "--device-state-dir", folder)
    assert code == 0
    assert (found["devices"]["read"], found["devices"]["waiting"]) == (2, 1)


def test_a_duplicate_of_another_update_of_the_same_device_holds(central, tmp_path):
    jobs = [(1, STRANGE, "duplicate", None), (2, xfer_of(central, "a", 2), "accepted", None)]
    folder = device(tmp_path / "a", central.newest(), *jobs)
    assert audit(central, "--device-state-dir", folder)[0] == 0


@pytest.mark.parametrize("status", ["accepted", "duplicate"])
def test_a_receipted_update_that_central_does_not_have_is_lost(central, tmp_path, status):
    folder = device(tmp_path / "a", central.newest(), (1, STRANGE, status, None))
    code, found = audit(central, "--device-state-dir", folder)
    assert (code, found["lost"]) == (1, 1)
    assert found["findings"] == [f"a: t round 1: receipted {status}, not in central's tables"]


@pytest.mark.parametrize("status", ["late", "rejected"])
def test_a_refused_update_that_counts_is_found_out(central, tmp_path, status):
    job = (1, xfer_of(central, "a", 1), status, None)
    folder = device(tmp_path / "a", central.newest(), job)
    assert f"receipted {status}, in central's" in findings(central, "--device-state-dir", folder)


def test_a_device_that_was_told_another_end_is_found_out(central, tmp_path):
    job = (1, xfer_of(central, "a", 1), "accepted", "discarded")
    folder = device(tmp_path / "a", central.newest(), job)
    assert "told discarded, central has counted" in findings(central, "--device-state-dir", folder)


def gateway(folder, *receipts):
    folder.mkdir()
    writer = FrameWriter("central", 1, np.random.default_rng(0), lambda: 0.0)
    opened = open_database(
        folder / "gateway.db", gateway_store.SCHEMA, gateway_store.SCHEMA_VERSION
    )
    with closing(opened) as database, transaction(database):
        for xfer, status in receipts:
            frame = writer.frame(Receipt(xfer=xfer, status=status, sha256="0" * 64))
            database.execute("INSERT INTO receipts VALUES (?, 'a', 0, ?)", (xfer, frame))
    return folder


def test_what_a_gateway_passed_down_is_held_against_centrals_tables(central, tmp_path):
    right = gateway(tmp_path / "g1", (xfer_of(central, "a", 1), "accepted"), (STRANGE, "late"))
    assert audit(central, "--gateway-state-dir", right)[0] == 0
    wrong = gateway(tmp_path / "g2", (xfer_of(central, "a", 1), "late"), (STRANGE, "accepted"))
    code, found = audit(central, "--gateway-state-dir", wrong)
    assert (code, found["lost"], len(found["findings"])) == (1, 1, 2)


# -- the command ---------------------------------------------------------------------------


def test_the_table_says_what_was_counted_and_that_it_holds(central):
    result = CliRunner().invoke(cli, ["audit", "--state-dir", str(central.root)])
    assert result.exit_code == 0
    assert "t: 1 refused: late E_LATE" in result.stdout
    assert result.stdout.endswith("the promise holds: lost 0, double 0\n")


def test_a_broken_promise_is_named_in_the_table(central):
    change(central, "UPDATE contributions SET settled = NULL WHERE round = 1 AND device = 'b'")
    result = CliRunner().invoke(cli, ["audit", "--state-dir", str(central.root)])
    assert result.exit_code == 1
    assert "WRONG: t: round 1, b: neither counted nor discarded with a reason" in result.stdout
    assert result.stdout.endswith("the promise is BROKEN: lost 1, double 0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "x"), "task: 'x' is not known here; there are: t"),
        (("--device-state-dir", "."), "is not a device's, it has no device.db"),
        (("--gateway-state-dir", "."), "is not a gateway's, it has no gateway.db"),
    ],
)
def test_books_that_are_not_there_are_named(central, arguments, said):
    code, error = audit(central, *arguments)
    assert code == 1
    assert said in error


def test_a_directory_without_central_is_refused(tmp_path):
    result = CliRunner().invoke(cli, ["audit", "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not central's, it has no central.db" in result.stderr


def test_an_audit_changes_nothing_where_it_reads(central):
    (central.root / "parts" / "in-use.tmp").write_bytes(b"x")
    before = sorted(path.name for path in central.root.rglob("*"))
    assert audit(central)[0] == 0
    assert sorted(path.name for path in central.root.rglob("*")) == before
