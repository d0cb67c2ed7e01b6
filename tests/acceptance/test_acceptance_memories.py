"""Memories of devices through crashes: what both ends hold is the same to the last bit.

A fleet trains while programs are killed between training and receipt; or updates come too late, are
discarded with their round, and one device is absent for ten rounds. Then each device's counted rounds are trained again, one after
the other, each with the memory that the one before has left: the same updates must come out, and at
the end the very memory that the device has on its disk. In a lazy task central has it as well.
"""

import shutil
import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest
from safetensors import numpy as safetensors

from central.adapters.store import SqliteStore
from device_agent.adapters.data_sources import load_data
from device_agent.adapters.job_run import JobRun
from device_agent.adapters.memory_store import SqliteMemoryStore
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.store import SqliteJobStore
from device_agent.core.job import JobKey
from device_agent.service.ports import Work
from device_agent.training.backends import Trainers
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import Books
from transport.failpoints import VARIABLE
from transport.objects import ObjectStore
from updates.codecs import create
from updates.feedback import REACH_ROUNDS

DEVICES = ("d1", "d2", "d3")
VICTIM, ABSENT = "d1", "d3"
BACKEND = "torch"
ABSENT_ROUNDS = 10
PATIENCE_S = 60.0
#: Between the end of the training and the receipt, in the order in which a device comes by.
BETWEEN = (
    "device.training.done",
    "device.update.encoded",
    "device.result.due",
    "device.memory.stored",
    "device.outbox.added",
    "transport.commit.after",
    "device.receipt.applied",
    "device.memory.chosen",
)
TASKS = {
    "feedback": {"codec": "topk", "codec_params": {"fraction": 0.05}},
    "lazy": {"codec": "laq"},
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    shape = Shape(devices=DEVICES, regions=("north",), backends=dict.fromkeys(DEVICES, BACKEND))
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        yield running


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.02)


def committed(fleet, task):
    statuses = fleet.statuses(task)
    return statuses[-1]["committed"] if statuses else 0


def go_on(fleet, task, rounds):
    """Let some more rounds be committed."""
    until = committed(fleet, task) + rounds
    fleet.wait_for(task, lambda status: status["committed"] >= until)


def kill_at(fleet, name, failpoint, nth=2):
    """Start a program anew so that it is killed at its ``nth`` visit of a failpoint; revive it."""
    program = fleet.program(name)
    fleet.kill(name)
    program.environment[VARIABLE] = f"{failpoint}:{nth}:kill"
    program.start()
    wait_until(lambda: not program.is_running, f"{name} comes by {failpoint}")
    del program.environment[VARIABLE]
    fleet.restart(name)


def lose_an_update(fleet, task):
    """Stop one device while it trains; the others end its round. It delivers, too late, and goes."""
    wait_until(lambda: jobs_in(fleet, task, "training"), f"{ABSENT} trains")
    fleet.freeze(ABSENT)
    go_on(fleet, task, 2)
    late = Books(fleet.state_dir("central"), task)
    before = late.refused(ABSENT)
    fleet.thaw(ABSENT)
    wait_until(lambda: late.refused(ABSENT) > before, "its update is too late")
    fleet.kill(ABSENT)


def jobs_in(fleet, task, state):
    with device_books(fleet, ABSENT) as database:
        query = "SELECT count(*) FROM jobs WHERE task = ? AND state = ?"
        return database.execute(query, (task, state)).fetchone()[0]


def rest(fleet, task):
    """Pause a task; return when no round of it is open."""
    fleet.control(task, "pause")
    books = Books(fleet.state_dir("central"), task)
    paused = lambda: books.task.progress.is_paused and books.task.progress.step == "selecting"  # noqa: E731
    wait_until(paused, "the open round ends")
    return books


def device_books(fleet, device):
    path = fleet.state_dir(device) / "device.db"
    return closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True))


class Again:
    """Does a device's jobs once more, in this process and on files of its own."""

    def __init__(self, fleet, device, folder):
        self.objects = ObjectStore(folder)
        self.deltas = []
        central = fleet.state_dir("central") / "objects"
        shutil.copytree(central, folder / "objects", dirs_exist_ok=True)
        shard = f"{DEVICES.index(device) + 1}/{len(DEVICES)}"
        data = load_data([fleet.shape.data], shard, None, 0)
        self._trainers = Trainers((BACKEND,))
        states = OptimizerStates(folder / "optimizer", 0)
        self._run = JobRun(device, data, self.objects, self._trainer, folder / "parts", states)

    def _trainer(self, plan, backend):
        self._inner = self._trainers.of(plan, backend)
        return self

    def train(self, request, progress, should_stop):
        result = self._inner.train(request, progress, should_stop)
        self.deltas.append(result.delta.astype(np.float64))
        return result

    def do(self, record, reference, memory):
        work = Work(
            record.key,
            record.plan,
            record.model.sha256,
            BACKEND,
            None,
            reference,
            memory,
            record.lazy,
        )
        return self._run.run(work, lambda _: None, lambda: False)


def replay(fleet, books, device, folder):
    """Train a device's counted rounds again; return what the last one leaves, and the deltas.

    Both begin with the last round that builds on none: the first, or one after a long absence.
    """
    numbers = [record.state.number for record in books.committed]
    again, memory, last, sent = Again(fleet, device, folder), None, 0, []
    rows = [r for r in books.contributions() if r.device == device and r.settled == "counted"]
    with device_books(fleet, device) as database:
        store = SqliteJobStore(database)
        records = {row.round: store.get(JobKey(row.task, row.round)) for row in rows}
    for row in rows:
        record = records[row.round]
        missed = sum(last <= number < row.round for number in numbers)
        told = last if missed <= REACH_ROUNDS else 0
        assert row.reference == told, f"{device}: round {row.round} builds on another one"
        if not told:
            memory = None
            again.deltas.clear()
            sent.clear()
        update = again.do(record, row.reference, memory)
        assert update.manifest.sha256 == row.sha256, f"{device}: round {row.round} differs"
        codec = create(record.plan.codec, record.plan.codec_params)
        sent.append(codec.decode(update.tail, books.layout).astype(np.float64))
        memory, last = update.memory, row.round
    return last, memory, again.deltas, sent


def submit(fleet, task, mode, **changes):
    fleet.heal()
    return fleet.submit(
        {
            "task": task,
            "model": "softmax",
            "data": "digits",
            "rounds": 100_000,
            "cohort": len(DEVICES),
            "training": {"epochs": 2, "learning_rate": 0.02, "momentum": 0.0},
            **TASKS[mode],
            **changes,
        }
    )


def check(fleet, task, mode, folder):
    """Compare what both ends hold with what the counted rounds, trained again, leave."""
    books = rest(fleet, task)
    books.check()
    with closing(
        sqlite3.connect(f"file:{fleet.state_dir('central') / 'central.db'}?mode=ro", uri=True)
    ) as database:
        central = safetensors.load(SqliteStore(database).strategy_state(task))
    for device in DEVICES:
        last, memory, deltas, sent = replay(fleet, books, device, folder / device)
        assert len(deltas) >= 2, f"{device} was counted in {len(deltas)} rounds only"
        with device_books(fleet, device) as database:
            held = SqliteMemoryStore(database).get(JobKey(task, last))
        assert held == memory, f"{device}: round {last}"
        vector = np.frombuffer(held.payload, "<f4")
        if mode == "feedback":
            total = sum(sent) + vector
            np.testing.assert_allclose(total, sum(deltas), atol=1e-5 * len(deltas))
        else:
            assert central[f"lazy.vector.{device}"].tobytes() == vector.tobytes()
    fleet.control(task, "cancel")
    return books


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(TASKS))
def test_both_ends_hold_the_same_after_kills_between_training_and_receipt(mode, fleet, tmp_path):
    """Every round needs all devices, so it waits for what the killed one does once more."""
    task = submit(fleet, f"kills-{mode}", mode, min_clients=len(DEVICES))
    go_on(fleet, task, 2)
    for failpoint in BETWEEN:
        kill_at(fleet, VICTIM, failpoint)
    for failpoint in ("central.strategy.saved", "central.aggregation.stored"):
        kill_at(fleet, "central", failpoint)
    fleet.kill("gateway-north", "d2")
    fleet.restart("gateway-north", "d2")
    go_on(fleet, task, 3)
    check(fleet, task, mode, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(TASKS))
def test_both_ends_hold_the_same_after_lost_updates_and_ten_rounds_of_absence(
    mode, fleet, tmp_path
):
    task = submit(
        fleet, f"loses-{mode}", mode, min_clients=2, deadline_s=3, on_shortfall="abandon"
    )
    go_on(fleet, task, 3)
    lose_an_update(fleet, task)
    go_on(fleet, task, ABSENT_ROUNDS)
    rest(fleet, task)
    fleet.restart(ABSENT)
    fleet.control(task, "resume")
    go_on(fleet, task, 5)
    fleet.kill("d2", ABSENT)  # the update of the third is accepted, and discarded with the round
    fleet.wait_for(task, lambda status: status["abandoned"] >= 1)
    fleet.restart("d2", ABSENT)
    go_on(fleet, task, 5)
    books = check(fleet, task, mode, tmp_path)
    assert books.refused(ABSENT), "no update was lost for ever"
