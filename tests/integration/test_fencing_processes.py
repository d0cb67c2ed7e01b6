"""Two programs on one state directory: the second is refused, or else the first is fenced."""

import pytest

from tests.support.fleet import CENTRAL, Shape, is_final, running_fleet
from tests.support.fleet_books import Books
from tests.support.fleet_programs import Program

ROUNDS = 4
LAST = "d2"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    shape = Shape(devices=("d1", LAST), environment={"MIN_CLIENTS": "2"})
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        yield running


def second(fleet, name):
    """Return another program with the very same command."""
    first = fleet.program(name)
    log = fleet.folder / "logs" / f"{name}-second-{len(list(fleet.folder.rglob('*second*')))}.log"
    return Program(name, first.command, log, fleet.shape.environment)


@pytest.mark.parametrize("name", [CENTRAL, "gateway-north", "d1"])
def test_the_second_program_on_a_state_directory_is_refused_in_one_line(fleet, name):
    other = second(fleet, name)
    other.start()
    assert other.wait() == 1
    lines = [line for line in other.log.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert f"in use by process {fleet.program(name).pid}" in lines[0]
    assert "E_FENCED" in lines[0]
    assert "Traceback" not in other.log
    assert fleet.program(name).is_running


@pytest.mark.parametrize("was_asleep", [False, True])
@pytest.mark.parametrize("name", [CENTRAL, "gateway-north", "d1"])
def test_without_the_lock_the_first_is_fenced_and_the_books_are_exact(fleet, name, was_asleep):
    """A lock file that is gone is what a file system looks like that does not share locks."""
    task = fleet.submit(
        {
            "task": f"fenced-{name}-{was_asleep}".lower(),
            "model": "mlp",
            "data": "digits",
            "rounds": ROUNDS,
        }
    )
    fleet.wait_for(task, lambda status: status["committed"] >= 1)
    fleet.freeze(LAST)
    held = fleet.wait_for(
        task, lambda status: status.get("phase") == "reporting" and status["reported"] == 1
    )
    assert not is_final(held)
    first, other = fleet.program(name), second(fleet, name)
    (fleet.state_dir(name) / "lock").unlink()
    if was_asleep:
        first.freeze()
    fleet._boots[name] = fleet.boot(name) or 0
    fleet.programs[name] = other
    other.start()
    fleet.wait_until_online(name)
    fleet.thaw(LAST)
    first.thaw()
    assert first.wait() == 1, first.tail
    (line,) = [line for line in first.log.splitlines() if line.startswith("Error: ")]
    assert "E_FENCED" in line
    assert "Traceback" not in first.log
    fleet.complete(task)
    books = Books(fleet.state_dir(CENTRAL), task)
    books.check()
    assert len(books.committed) == ROUNDS
    assert books.recompute() == [record.model_sha256 for record in books.committed]
    assert other.is_running
    assert fleet.boot(name) is not None
