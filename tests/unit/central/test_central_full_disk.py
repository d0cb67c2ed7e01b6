"""Central's heavy work on a full disk, and on damaged files: it waits, refuses, never guesses."""

import errno
import queue
import sqlite3

import pytest

from central.adapters.worker import ThreadWorker
from central.service.ports import (
    JobDelayed,
    JobFailed,
    ModelPrepared,
    RoundAggregated,
    StateDamaged,
)
from tests.support.central_fixture import CentralRig
from transport.database import DatabaseCorruptError
from transport.loop import ServiceLoop

WAIT_S = 20.0


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path)
    made.fleet("a", "b")
    yield made
    made.connection.close()


def full():
    return OSError(errno.ENOSPC, "No space left on device")


def close_a_round(rig, **fields):
    """Return the job that a round's last update made due."""
    rig.submit(task="t", rounds=1, **fields)
    rig.work()
    assignment = rig.newest()
    for device in ("a", "b"):
        assert rig.update(device, assignment).status == "accepted"
    return rig.worker.waiting.pop()


class Failing:
    """A job's work that fails a few times before it is done."""

    def __init__(self, work, *errors):
        self.errors = list(errors)
        self.work = work

    def __call__(self, job):
        if self.errors:
            raise self.errors.pop(0)
        return self.work(job)


def run_thread(work, job):
    events = queue.SimpleQueue()
    thread = ThreadWorker(events, work)
    thread.start()
    thread.submit(job)
    found = [events.get(timeout=WAIT_S)]
    while isinstance(found[-1], JobDelayed):
        found.append(events.get(timeout=WAIT_S))
    thread.end()
    thread.join(WAIT_S)
    return found


@pytest.mark.parametrize(
    "error", [full(), sqlite3.OperationalError("database or disk is full")], ids=["file", "table"]
)
def test_an_aggregation_on_a_full_disk_is_tried_again_and_said_once(rig, error):
    job = close_a_round(rig)
    delayed, done = run_thread(Failing(rig.worker.jobs.work, error, error, error), job)
    assert isinstance(done, RoundAggregated)
    rig.event(delayed)
    status = rig.status("t")
    assert status.reason.startswith("central waits for space on its disk: ")
    assert status.state == "running"
    rig.event(done)
    rig.work()
    status = rig.status("t")
    assert (status.state, status.committed, status.abandoned, status.reason) == (
        "completed", 1, 0, None,
    )  # fmt: skip


def test_the_model_that_does_not_fit_leaves_nothing_behind_and_fits_later(rig, monkeypatch):
    job = close_a_round(rig)
    adopt, parts = rig.objects.adopt, rig.root / "parts"
    left = []

    def refuse(*_, **__):
        left.append(len(list(parts.iterdir())))
        raise full()

    store = rig.worker.jobs._objects
    monkeypatch.setattr(store, "adopt", refuse)
    with pytest.raises(OSError, match="No space left"):
        rig.worker.jobs.work(job)
    assert left == [1]
    assert not list(parts.iterdir())
    monkeypatch.setattr(store, "adopt", adopt)
    assert isinstance(rig.worker.jobs.work(job), RoundAggregated)


def test_a_thread_that_is_stopped_while_the_disk_is_full_ends_and_reports_no_failure(rig):
    events = queue.SimpleQueue()

    def work(_):
        raise full()

    thread = ThreadWorker(events, work)
    thread.start()
    thread.submit(close_a_round(rig))
    assert isinstance(events.get(timeout=WAIT_S), JobDelayed)
    thread.end()
    thread.join(WAIT_S)
    assert not thread._thread.is_alive()
    assert events.empty()


def test_other_faults_of_a_job_still_end_it(rig):
    job = close_a_round(rig)
    (failed,) = run_thread(Failing(rig.worker.jobs.work, ValueError("no")), job)
    assert isinstance(failed, JobFailed)


def test_a_stored_update_with_a_flipped_bit_ends_central_and_no_model_is_made(rig):
    job = close_a_round(rig)
    (payload,) = rig.connection.execute(
        "SELECT payload FROM payloads WHERE device = 'a'"
    ).fetchone()
    flipped = payload[:-1] + bytes([payload[-1] ^ 1])
    rig.connection.execute("UPDATE payloads SET payload = ? WHERE device = 'a'", (flipped,))
    before = rig.objects.sizes()
    (damaged,) = run_thread(rig.worker.jobs.work, job)
    assert isinstance(damaged, StateDamaged)
    assert rig.objects.sizes() == before
    events = queue.SimpleQueue()
    events.put(damaged)
    loop = ServiceLoop(rig.connection, events, {}, rig.handler, lambda: rig.now_s)
    with pytest.raises(DatabaseCorruptError, match=r"central\.db is damaged: .*not the one"):
        loop.run()


@pytest.mark.parametrize("damage", ["flipped", "empty"])
def test_a_damaged_model_fails_its_task_when_a_round_would_open_and_no_other(rig, damage):
    rig.submit(task="t", rounds=2)
    prepared = rig.worker.jobs.work(rig.worker.waiting.pop())
    assert isinstance(prepared, ModelPrepared)
    path = rig.objects.path(prepared.sha256)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?" if damage == "flipped" else b"")
    rig.event(prepared)
    status = rig.status("t")
    assert status.state == "failed"
    assert f"object {path} is damaged or missing" in status.reason
    assert "fedfleet restore" in status.reason
    path.write_bytes(whole)
    rig.submit(task="u", rounds=1)
    rig.work()
    assert rig.newest().task == "u"


def test_a_damaged_model_is_found_when_central_starts(rig):
    rig.submit(task="t", rounds=2)
    rig.work()
    rig.update("a", rig.newest())
    path = rig.objects.path(rig.newest().model.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    rig.restart()
    status = rig.status("t")
    assert (status.state, status.abandoned) == ("failed", 0)
    assert f"object {path} is damaged" in status.reason
    row = rig.store.contribution("t", 1, "a")
    assert (row.settled, "is damaged" in row.reason) == ("discarded", True)
