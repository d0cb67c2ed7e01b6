"""``fedfleet failpoints`` lists the catalogue; a variable that makes no sense stops a program."""

import json

import pytest
from click.testing import CliRunner

from fedfleet.cli import cli
from transport.failpoint_catalogue import PROGRAMS, catalogue
from transport.failpoints import VARIABLE


def run(*arguments, **environment):
    return CliRunner().invoke(cli, list(arguments), env=environment)


def test_each_failpoint_is_one_line():
    lines = run("failpoints").output.splitlines()
    assert len(lines) == len(catalogue()) + 2
    for place, line in zip(catalogue(), lines[2:], strict=True):
        assert line.split()[0] == place.name
        assert line.endswith(place.edge)


def test_as_json_each_is_an_object():
    found = json.loads(run("failpoints", "--json").output)
    first = catalogue()[0]
    assert found[0] == {
        "name": first.name,
        "programs": list(first.programs),
        "edge": first.edge,
    }
    assert len(found) == len(catalogue())


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_those_that_it_comes_by(program):
    found = json.loads(run("failpoints", "--program", program, "--json").output)
    expected = [place.name for place in catalogue() if program in place.programs]
    assert [place["name"] for place in found] == expected


@pytest.mark.parametrize(
    "verb",
    [
        ("central",),
        ("gateway", "--region", "north"),
        ("device", "--region", "north", "--id", "d1"),
    ],
)
@pytest.mark.parametrize("armed", ["no.such.place:1:kill", "transport.commit.after:0:kill", "x"])
def test_a_program_refuses_a_failpoint_that_is_not_there_before_it_opens_anything(
    verb, armed, tmp_path
):
    state_dir = tmp_path / "state"
    done = run(*verb, "--state-dir", str(state_dir), **{VARIABLE: armed})
    assert done.exit_code == 2
    lines = done.output.splitlines()
    assert lines[-1].startswith(f"Error: {VARIABLE}: ")
    assert not state_dir.exists()
