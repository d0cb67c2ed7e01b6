"""Damaged files: found, named with the way to restore, and never aggregated."""

import sqlite3
import time
from contextlib import closing

import pytest

from tests.support.fleet import Shape, is_final, running_fleet
from tests.support.fleet_books import Books
from tests.support.fleet_programs import run_verb

PROGRAMS = {"central": "central.db", "gateway-north": "gateway.db", "d1": "device.db"}
PAGE_BYTES = 4096
TASK = {"model": "mlp", "data": "digits", "min_clients": 2}
LARGE = {
    **TASK,
    "model_params": {"hidden": [700, 700]},
    "codec": "raw-f32",
    "training": {"epochs": 0},
}


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory):
    shape = Shape(devices=("d1", "d2"), regions=("north",))
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        task = running.submit({**TASK, "task": "before", "rounds": 3})
        running.complete(task)
        yield running


@pytest.fixture
def fleet(whole_fleet):
    whole_fleet.heal()
    return whole_fleet


def database_of(fleet, name):
    return fleet.state_dir(name) / PROGRAMS[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_programs_database_syncs_each_commit(fleet, name):
    """WAL is written into the file; ``synchronous`` belongs to the connection that writes."""
    path = database_of(fleet, name)
    assert path.read_bytes()[18:20] == b"\2\2"  # WAL, for reading and for writing
    assert path.with_name(f"{path.name}-wal").is_file()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def checkpoint(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def start_and_wait(program, since):
    program.start()
    return program.wait(60.0), program.log[since:]


def page_of(path, table):
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = database.execute(query, (table,)).fetchone()
    return page - 1


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("central", "contributions"),
        ("central", "contributions_by_sha"),
        ("gateway-north", "devices"),
        ("gateway-north", "outbox_next_try"),
        ("d1", "jobs"),
        ("d1", "boot"),
    ],
)
def test_a_program_refuses_a_damaged_page_and_says_how_to_restore(fleet, name, table):
    fleet.kill(name)
    path = database_of(fleet, name)
    checkpoint(path)
    whole = path.read_bytes()
    program = fleet.program(name)
    page = page_of(path, table)
    damaged = bytearray(whole)
    damaged[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xff" * PAGE_BYTES
    path.write_bytes(damaged)
    try:
        code, said = start_and_wait(program, len(program.log))
    finally:
        path.write_bytes(whole)
    assert code == 1
    assert f"Error: database {path} is damaged: " in said
    assert f"fedfleet restore --from BACKUP --state-dir {path.parent} --replace" in said
    assert "Traceback" not in said
    fleet.restart(name)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def hold_open(fleet, task):
    """Freeze d2; return the round in which only its update is missing."""
    fleet.wait_for(task, lambda status: status["committed"] >= 1)
    fleet.freeze("d2")
    time.sleep(1.0)
    held = fleet.wait_for(task, lambda s: s.get("phase") == "reporting" and s["reported"] == 1)
    return held["round"]


def damage_the_update_of(fleet, task, number):
    with closing(sqlite3.connect(database_of(fleet, "central"))) as database:
        query = "SELECT sha256 FROM contributions WHERE task = ? AND round = ?"
        (sha256,) = database.execute(query, (task, number)).fetchone()
    return flip(fleet.state_dir("central") / "objects" / sha256)


def test_a_large_update_whose_file_is_damaged_is_in_no_aggregate(fleet):
    task = fleet.submit({**LARGE, "task": "bad-update", "rounds": 6, "training": {"epochs": 1}})
    number = hold_open(fleet, task)
    path = damage_the_update_of(fleet, task, number)
    fleet.thaw("d2")
    fleet.complete(task, within_s=120.0)
    books = Books(fleet.state_dir("central"), task)
    record = books.round(number)
    assert record.summary.outcome == "abandoned"
    assert f"object {path} is damaged" in record.state.reason
    (finding,) = books.audit().findings
    assert finding == f"round {number}, d1: its bytes are not those of its digest"
    assert books.recompute() == [row.model_sha256 for row in books.committed]


def test_a_damaged_file_is_replaced_when_another_device_has_the_same_update(fleet):
    task = fleet.submit({**LARGE, "task": "same-update", "rounds": 6})
    number = hold_open(fleet, task)
    damage_the_update_of(fleet, task, number)
    fleet.thaw("d2")
    assert fleet.complete(task, within_s=120.0)["abandoned"] == 0
    books = Books(fleet.state_dir("central"), task)
    assert books.round(number).contributors == ("d1", "d2")
    assert books.recompute() == [row.model_sha256 for row in books.committed]


@pytest.mark.parametrize("found", ["at the start", "at the aggregation"])
def test_a_model_whose_file_is_damaged_fails_its_task_and_names_the_way_back(fleet, found):
    task = fleet.submit({**LARGE, "task": f"bad-model-{found[-5:]}", "rounds": 50})
    number = hold_open(fleet, task)
    base = Books(fleet.state_dir("central"), task).task.model_sha256
    path = flip(fleet.state_dir("central") / "objects" / base)
    if found == "at the start":
        fleet.kill("central")
        fleet.restart("central")
    fleet.thaw("d2")
    status = fleet.wait_for(task, is_final, 120.0)
    assert status["state"] == "failed"
    assert f"object {path} is damaged" in status["reason"]
    assert "fedfleet restore" in status["reason"]
    assert status["committed"] == number - 1
    refused = run_verb(
        *("export", task, "--state-dir", str(fleet.state_dir("central"))),
        *("--safetensors", str(fleet.folder / "out.safetensors")),
    )
    assert (refused.returncode, "is damaged" in refused.stderr) == (1, True)
    other = fleet.submit({**TASK, "task": f"after-{found[-5:]}", "rounds": 2})
    fleet.complete(other)


def remember_many_refusals(path):
    """Make the database larger than what central keeps of it in memory."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) "
            "INSERT INTO refusals SELECT lower(hex(randomblob(16))), 'old', i, 'd', 'late', "
            "'E_LATE', hex(randomblob(60)), 0 FROM n"
        )
        database.commit()


def test_damage_that_is_found_while_central_runs_ends_it(fleet):
    """The last of this module: the broker keeps the word of a task that central then forgets."""
    name = "central"
    path = database_of(fleet, name)
    fleet.kill(name)
    checkpoint(path)
    whole = path.read_bytes()
    remember_many_refusals(path)
    checkpoint(path)
    program = fleet.program(name)
    fleet.restart(name)
    logged = len(program.log)
    size = path.stat().st_size
    with path.open("r+b") as file:  # behind its back, all but what the first page says
        file.seek(PAGE_BYTES)
        file.write(b"\xff" * (size - PAGE_BYTES))
    try:
        fleet.submit({**TASK, "task": "met", "rounds": 3})
        code = program.wait(90.0)
    finally:
        program.kill()
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        path.write_bytes(whole)
    said = program.log[logged:]
    assert code == 1
    assert f"Error: database {path} is damaged: " in said
    assert "fedfleet restore" in said
    fleet.restart(name)
