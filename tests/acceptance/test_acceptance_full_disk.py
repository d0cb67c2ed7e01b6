"""A disk that fills up in the middle of a task: nothing is promised, nothing lost, it goes on."""

import time
from contextlib import ExitStack

import pytest

from schemas.limits import MIB
from tests.support.fleet import Shape, is_final, running_fleet
from tests.support.fleet_books import PROMISES, Books, promised
from tests.support.fleet_watch import Tap
from tests.support.small_disks import no_file_above, small_disk

VICTIMS = ("central", "gateway-north", "d1")
DISK_BYTES = 256 * MIB
FULL_S = 4.0
#: All four are needed: without the victim no round ends.
TASK = {"data": "digits", "min_clients": 4, "deadline_s": 5}
SMALL = {**TASK, "model": "mlp", "rounds": 40}
LARGE = {
    **TASK,
    "model": "mlp",
    "model_params": {"hidden": [700, 700]},
    "rounds": 8,
    "codec": "raw-f32",
    "training": {"epochs": 0},
}


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(small_disk(folder / name, DISK_BYTES)) for name in VICTIMS
        }
        whole = stack.enter_context(running_fleet(folder, Shape()))
        yield whole, made


@pytest.fixture
def whole_fleet(tmp_path_factory):
    with running_fleet(tmp_path_factory.mktemp("fleet"), Shape()) as running:
        yield running


def tapped(fleet):
    return Tap(fleet.broker.port, *PROMISES, keep_bytes=1024 * 1024)


def wait_for_log(fleet, name, text, since, within_s=30.0):
    end = time.monotonic() + within_s
    while text not in fleet.program(name).log[since:]:
        assert time.monotonic() < end, fleet.fail(f"{name} never logged {text}")
        time.sleep(0.05)


def check_books(fleet, task, tap):
    status = fleet.retained(task)
    books = Books(fleet.state_dir("central"), task)
    books.check()
    accepted = promised(tap, task)
    assert len(accepted) >= status["committed"] * 4
    assert all(books.knows(receipt) for receipt, _ in accepted)
    digests = books.recompute()
    assert digests == [record.model_sha256 for record in books.committed]
    assert digests[-1] == status["model_sha256"]
    assert len(digests) == status["rounds"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [pytest.param(SMALL, marks=pytest.mark.long, id="small"), pytest.param(LARGE, id="large")],
)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_program_whose_disk_is_full_waits_and_goes_on_by_itself(disks, victim, fields):
    fleet, made = disks
    fleet.heal()
    tap = tapped(fleet)
    task = fleet.submit({**fields, "task": f"full-{victim}-{fields['rounds']}"})
    fleet.wait_for(task, lambda status: status["committed"] >= 2)
    logged = len(fleet.program(victim).log)
    made[victim].fill()
    try:
        wait_for_log(fleet, victim, "storage", logged)
        stuck = fleet.statuses(task)[-1]
        promises = len(promised(tap, task))
        time.sleep(FULL_S)
        if victim == "central":
            assert len(promised(tap, task)) == promises
            assert fleet.statuses(task)[-1]["committed"] == stuck["committed"]
        assert not is_final(fleet.statuses(task)[-1])
        assert fleet.program(victim).is_running
    finally:
        made[victim].free()
    fleet.complete(task, within_s=120.0)
    log = fleet.program(victim).log[logged:]
    assert "storage_recovered" in log or '"code": "storage"' in log
    check_books(fleet, task, tap)
    tap.close()


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_program_that_starts_on_a_full_disk_says_so_in_one_line(disks, victim):
    fleet, made = disks
    fleet.heal()
    fleet.kill(victim)
    made[victim].fill()
    program = fleet.program(victim)
    logged = len(program.log)
    try:
        program.start()
        end = time.monotonic() + 30.0
        while program.is_running and "storage_unavailable" not in program.log[logged:]:
            assert time.monotonic() < end, program.tail
            time.sleep(0.1)
        said = program.log[logged:]
        assert "Traceback" not in said
        if not program.is_running:
            assert program.returncode == 1
            assert "Error: " in said
            assert any(text in said for text in ("disk is full", "No space left"))
    finally:
        made[victim].free()
    if program.is_running:
        fleet.wait_until_online(victim)


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_program_whose_files_may_not_grow_waits_and_goes_on_by_itself(whole_fleet, victim):
    fleet = whole_fleet
    tap = tapped(fleet)
    task = fleet.submit({**SMALL, "rounds": 25, "task": "limited"})
    fleet.wait_for(task, lambda status: status["committed"] >= 2)
    log = next(fleet.state_dir(victim).glob("*.db-wal"))
    logged = len(fleet.program(victim).log)
    with no_file_above(fleet.program(victim), log.stat().st_size):
        wait_for_log(fleet, victim, "storage_unavailable", logged)
        time.sleep(FULL_S)
        assert not is_final(fleet.statuses(task)[-1])
        assert fleet.program(victim).is_running
    fleet.complete(task, within_s=120.0)
    assert "storage_recovered" in fleet.program(victim).log[logged:]
    check_books(fleet, task, tap)
    tap.close()
