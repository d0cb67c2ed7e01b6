"""The soak's verdict: what is flat, what leaks, and books that are not in order."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.soak import report, soak_plan
from benchmarks.soak_books import audit
from benchmarks.soak_figures import MIB, Course, Sample, sparkline
from fedfleet.testbed.plan import Place
from schemas.tasks import parse_submission


def course(sizes_mib, warm_up=0, threads=None, files=None):
    count = len(sizes_mib)
    threads, files = threads or [4] * count, files or [11] * count
    samples = tuple(
        Sample(number * 10, int(size * MIB), threads[number], files[number])
        for number, size in enumerate(sizes_mib)
    )
    return Course("central", samples, warm_up)


def test_memory_within_the_tolerance_of_its_start_is_flat():
    flat = course([100, 104, 96, 103, 100])
    assert flat.is_flat(0.05)
    assert not flat.is_flat(0.03)
    assert flat.deviation == pytest.approx(0.04)


def test_growth_during_the_warm_up_is_not_judged():
    assert course([10, 50, 100, 100, 100], warm_up=20).is_flat(0.01)


def test_one_peak_in_the_window_is_not_flat():
    assert not course([100] * 20 + [120] + [100] * 20).is_flat(0.05)


def test_memory_that_falls_is_told_with_its_sign():
    assert course([100, 100, 80]).deviation == pytest.approx(-0.2)


def test_the_slope_is_growth_in_a_hundred_rounds():
    assert course([100 + n for n in range(20)]).slope_bytes == pytest.approx(10 * MIB)
    assert course([100]).slope_bytes == 0


def test_threads_or_files_that_only_grow_are_a_leak():
    steady = [100] * 20
    assert not course(steady).leaks_handles()
    assert course(steady, files=list(range(11, 31))).leaks_handles()
    assert course(steady, threads=list(range(4, 24))).leaks_handles()
    assert not course(steady, files=[11, 13] * 10).leaks_handles()


def test_a_sparkline_goes_from_the_smallest_to_the_largest():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(500)))) == 40


def test_the_report_says_which_process_is_not_flat():
    text = report([course([100, 100, 200])], 0.05)
    assert "NO" in text
    assert "+100.0%" in text


def test_the_plan_is_central_gateways_and_one_process_for_all_devices():
    plan = soak_plan(30, 20, 2, Place(Path("/runs/x"), 1883, "/usr/sbin/mosquitto"))
    names = [process.name for process in plan.services]
    assert names == ["central", "gateway-region-1", "gateway-region-2", "devices"]
    submission = parse_submission(json.dumps(plan.submission).encode())
    assert (submission.rounds, submission.min_clients, submission.cohort) == (30, 20, 20)
    assert not submission.training.is_drill
    assert "--eval-data" not in plan.services[0].argv


@pytest.fixture
def states(tmp_path):
    """The state directories after one round with one device, in order."""

    def make(name, file, script):
        (tmp_path / name).mkdir()
        with closing(sqlite3.connect(tmp_path / name / file)) as database:
            database.executescript(script)

    central = """
        CREATE TABLE rounds (task, round, contributors, model_sha256);
        CREATE TABLE contributions (task, round, device, settled);
        CREATE TABLE tasks (task, totals);
        INSERT INTO rounds VALUES ('soak', 1, '["device-1"]', 'ab');
        INSERT INTO contributions VALUES ('soak', 1, 'device-1', 'counted');
        INSERT INTO tasks VALUES ('soak', '{"updates_accepted": 1}');
    """
    make("central", "central.db", central)
    make("gateway-region-1", "gateway.db", "CREATE TABLE outbox (xfer)")
    device = "CREATE TABLE outbox (xfer); CREATE TABLE jobs (task, state);"
    make("device-1", "device.db", device + "INSERT INTO jobs VALUES ('soak', 'done')")
    return tmp_path


def test_books_in_order_have_no_fault(states):
    assert audit(states, "soak", 1, 1, 1) == []


@pytest.mark.parametrize(
    ("database", "change", "fault"),
    [
        ("central/central.db", "UPDATE rounds SET model_sha256 = NULL", "0 rounds are committed"),
        ("central/central.db", "DELETE FROM contributions", "0 updates are counted"),
        ("central/central.db", "UPDATE contributions SET settled = NULL", "never settled"),
        (
            "central/central.db",
            "INSERT INTO contributions VALUES ('soak', 1, 'device-1', 'counted')",
            "not the contributors",
        ),
        (
            "central/central.db",
            """UPDATE tasks SET totals = '{"updates_accepted": 2}'""",
            "tell of 2 updates",
        ),
        ("gateway-region-1/gateway.db", "INSERT INTO outbox VALUES (1)", "still in custody"),
        ("device-1/device.db", "UPDATE jobs SET state = 'failed'", "0 jobs are done"),
        ("device-1/device.db", "INSERT INTO outbox VALUES (1)", "no final receipt"),
    ],
)
def test_books_that_are_not_in_order_are_told(states, database, change, fault):
    with closing(sqlite3.connect(states / database)) as opened:
        opened.execute(change)
        opened.commit()
    assert any(fault in text for text in audit(states, "soak", 1, 1, 1))
