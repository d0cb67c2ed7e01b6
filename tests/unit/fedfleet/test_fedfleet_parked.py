import json
from contextlib import closing

import pytest
from click.testing import CliRunner

from fedfleet.cli import cli
from transport.database import open_database
from transport.events import MessageArrived
from transport.parking import Parking


def run(*arguments):
    return CliRunner().invoke(cli, ["parked", *map(str, arguments)])


@pytest.fixture(params=["central.db", "gateway.db", "device.db"])
def state_dir(request, tmp_path):
    with closing(open_database(tmp_path / request.param, "CREATE TABLE x (y)", 1)) as database:
        parking = Parking(database)
        for number, text in enumerate((b"one", b"two")):
            event = MessageArrived("main", f"fl/v1/{number}", text, retained=False, ack=None)
            parking.park(event, "KeyError: 'x'", 3, 1000.0 + number)
    return tmp_path


def test_parked_messages_are_listed_with_topic_error_and_tries(state_dir):
    result = run("--state-dir", state_dir)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].split() == ["number", "last", "tries", "size", "topic", "error"]
    assert ["fl/v1/1" in lines[2], "fl/v1/0" in lines[3]] == [True, True]
    assert "KeyError: 'x'" in lines[2]


def test_the_list_is_one_json_object(state_dir):
    rows = json.loads(run("--state-dir", state_dir, "--json").output)["parked"]
    assert [row["topic"] for row in rows] == ["fl/v1/1", "fl/v1/0"]
    assert rows[0]["tries"] == 3


def test_one_is_dropped_by_its_number_and_all_at_once(state_dir):
    rows = json.loads(run("--state-dir", state_dir, "--json").output)["parked"]
    result = run("--state-dir", state_dir, "--drop", rows[0]["number"])
    assert (result.exit_code, result.output) == (0, "1 dropped\n")
    again = run("--state-dir", state_dir, "--drop", rows[0]["number"])
    assert (again.exit_code, "no parked message" in again.output) == (1, True)
    assert json.loads(run("--state-dir", state_dir, "--all", "--json").output) == {"dropped": 1}
    assert "nothing is parked" in run("--state-dir", state_dir).output


def test_a_directory_without_a_database_is_refused(tmp_path):
    result = run("--state-dir", tmp_path)
    assert result.exit_code == 1
    assert "central.db, gateway.db, device.db" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "central.db").write_bytes(b"no database" * 100)
    result = run("--state-dir", tmp_path)
    assert result.exit_code == 1
    assert "not a database" in result.output


def test_dropping_one_and_all_makes_no_sense(state_dir):
    assert run("--state-dir", state_dir, "--drop", 1, "--all").exit_code == 2
