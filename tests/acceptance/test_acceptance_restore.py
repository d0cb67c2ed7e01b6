"""Backups taken in the middle of a task, and a fleet that goes on after they were put back."""

import json
import sqlite3
import time
from contextlib import closing

import pytest

from central.adapters.store import SCHEMA_VERSION
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import PROMISES, Books, device_jobs, promised
from tests.support.fleet_programs import run_verb
from tests.support.fleet_watch import Tap

ROUNDS = 24
FIRST_AFTER_RESTORE = 1_000_001


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("fleet"), Shape()) as running:
        yield running


@pytest.fixture
def fleet(whole_fleet):
    whole_fleet.heal()
    return whole_fleet


@pytest.fixture
def tap(fleet):
    opened = Tap(fleet.broker.port, *PROMISES, keep_bytes=1024 * 1024)
    yield opened
    opened.close()


def verb(*arguments):
    done = run_verb(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def back_up(fleet, name, folder):
    return verb("backup", "--state-dir", str(fleet.state_dir(name)), "--to", str(folder))


def restore(fleet, name, folder):
    state_dir = str(fleet.state_dir(name))
    return verb("restore", "--from", str(folder), "--state-dir", state_dir, "--replace")


def submit(fleet, name, **fields):
    return fleet.submit(
        {"task": name, "model": "mlp", "data": "digits", "rounds": ROUNDS, "min_clients": 4}
        | fields
    )


def check_promise(books, tap):
    """Every receipt is in the tables, or of a round that the restore declares lost."""
    books.check()
    task = books.task
    declared = [(lost.first, lost.last) for lost in task.progress.lost]
    declared += [
        (record.state.number,) * 2
        for record in books.ended()
        if record.summary.outcome == "abandoned"
        and "restored from a backup" in record.state.reason
    ]
    kept, lost = 0, 0
    for receipt, number in promised(tap, task.task):
        if books.knows(receipt):
            kept += 1
        else:
            assert any(first <= number <= last for first, last in declared), (number, declared)
            lost += 1
    return kept, lost


def test_a_task_ends_with_its_promise_kept_when_central_is_restored_in_the_middle(
    fleet, tap, tmp_path
):
    task = submit(fleet, "restored-central")
    fleet.wait_for(task, lambda status: status["committed"] >= 3)
    told = back_up(fleet, "central", tmp_path / "backup")
    assert (told["program"], told["schema_version"]) == ("central", SCHEMA_VERSION)
    with closing(sqlite3.connect(tmp_path / "backup" / "central.db")) as copy:
        (known,) = copy.execute("SELECT count(*) FROM rounds WHERE ended_s NOT NULL").fetchone()
    assert 3 <= known < ROUNDS
    fleet.wait_for(task, lambda status: status["committed"] >= known + 3)
    running = run_verb(
        *("restore", "--from", str(tmp_path / "backup"), "--replace"),
        *("--state-dir", str(fleet.state_dir("central"))),
    )
    assert (running.returncode, "in use" in running.stderr) == (1, True)
    fleet.kill("central")
    told = restore(fleet, "central", tmp_path / "backup")
    fleet.restart("central")
    status = fleet.complete(task)

    books = Books(fleet.state_dir("central"), task)
    assert status["committed"] == ROUNDS
    numbers = [record.state.number for record in books.committed]
    assert numbers[:known] == list(range(1, known + 1))
    assert numbers[known:] == list(
        range(FIRST_AFTER_RESTORE, FIRST_AFTER_RESTORE + ROUNDS - known)
    )
    kept, lost = check_promise(books, tap)
    assert kept >= 4 * ROUNDS
    assert lost >= 4 * 2
    digests = books.recompute()
    assert digests == [record.model_sha256 for record in books.committed]
    assert digests[-1] == fleet.retained(task)["model_sha256"]
    said = [ended.get("reason", "") for ended in fleet.retained(task)["history"]]
    assert any("are unknown: central was restored from a backup of" in text for text in said)
    assert json.dumps(told["replaced"])


def hold_a_round_open(fleet, task):
    """Freeze the north; return once only its updates are missing in a round."""
    fleet.wait_for(task, lambda status: status["committed"] >= 2)
    fleet.freeze("d1", "d3")
    time.sleep(1.0)  # what was on its way has arrived
    fleet.wait_for(
        task, lambda status: status.get("phase") == "reporting" and status["reported"] >= 2
    )


def hold_in_custody(fleet):
    """Kill central; what the north then delivers is held by its gateway."""
    fleet.kill("central")
    fleet.thaw("d1", "d3")
    return await_custody(fleet, "north")


def custody(fleet, region):
    database = fleet.state_dir(f"gateway-{region}") / "gateway.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as tables:
        return {xfer for (xfer,) in tables.execute("SELECT xfer FROM outbox")}


def held(fleet, device):
    database = fleet.state_dir(device) / "device.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as tables:
        return {xfer for (xfer,) in tables.execute("SELECT xfer FROM outbox WHERE held")}


def await_custody(fleet, region):
    """Return what a gateway holds, once its devices have its word on all of it."""
    mine = [d for d in fleet.shape.devices if fleet.shape.region_of(d) == region]
    told = lambda: {xfer for device in mine for xfer in held(fleet, device)}  # noqa: E731
    found = fleet.watcher.wait(
        lambda: custody(fleet, region) if told() == custody(fleet, region) else None, 30.0
    )
    if not found:
        fleet.fail(f"{custody(fleet, region)} in custody, devices know of {told()}")
    return found


def test_a_gateway_that_is_restored_with_old_custody_counts_nothing_twice(fleet, tap, tmp_path):
    task = submit(fleet, "old-custody")
    hold_a_round_open(fleet, task)
    in_custody = hold_in_custody(fleet)
    back_up(fleet, "gateway-north", tmp_path / "backup")
    before = Books(fleet.state_dir("central"), task).task.progress.committed
    fleet.restart("central")
    fleet.wait_for(task, lambda status: status["committed"] >= before + 3)
    fleet.kill("gateway-north")
    restore(fleet, "gateway-north", tmp_path / "backup")
    assert custody(fleet, "north") == in_custody
    fleet.restart("gateway-north")
    fleet.complete(task)

    books = Books(fleet.state_dir("central"), task)
    kept, lost = check_promise(books, tap)
    assert (kept >= 4 * ROUNDS, lost) == (True, 0)
    assert books.recompute() == [record.model_sha256 for record in books.committed]
    settled = {row.xfer: row.settled for row in books.contributions()}
    assert all(settled[xfer] == "counted" for xfer in in_custody)
    assert fleet.watcher.wait(lambda: not custody(fleet, "north"), 30.0) is not None


@pytest.mark.long
def test_a_gateway_that_is_restored_without_its_custody_gets_it_again(fleet, tap, tmp_path):
    task = submit(fleet, "lost-custody")
    hold_a_round_open(fleet, task)
    back_up(fleet, "gateway-north", tmp_path / "backup")
    in_custody = hold_in_custody(fleet)
    fleet.kill("gateway-north")
    restore(fleet, "gateway-north", tmp_path / "backup")
    assert not in_custody & custody(fleet, "north")
    fleet.kill("broker")  # which has kept for central what the gateway had passed on
    fleet.restart("broker", "gateway-north", "central")
    fleet.complete(task, within_s=120.0)

    books = Books(fleet.state_dir("central"), task)
    assert check_promise(books, tap)[1] == 0
    settled = {row.xfer: row.settled for row in books.contributions()}
    assert all(settled[xfer] == "counted" for xfer in in_custody)
    for device in fleet.shape.devices:
        jobs = device_jobs(fleet.state_dir(device), task)
        assert set(jobs.values()) <= {"done", "superseded", "failed"}
