"""The command ``fedfleet profiles``."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import firmware_profiles
from fedfleet.cli import cli

MACHINES = Path(__file__).parents[2] / "golden" / "machines"
GENERIC = Path(firmware_profiles.__file__).parent / "generic.yaml"


def invoke(*arguments):
    return CliRunner().invoke(cli, ["profiles", *map(str, arguments)])


def test_every_command_and_option_has_a_help_text():
    for name in ("list", "show", "detect", "validate"):
        result = invoke(name, "--help")
        assert result.exit_code == 0
        assert "--json" in result.output


def test_all_profiles_are_listed_for_people_and_for_programs():
    lines = invoke("list").output.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(firmware_profiles.names())
    told = json.loads(invoke("list", "--json").output)
    assert [one["family"] for one in told] == list(firmware_profiles.names())
    assert told[3]["limits"]["temperature_ceiling_celsius"] == 85


def test_one_profile_is_shown_with_its_sources(tmp_path):
    shown = yaml.safe_load(invoke("show", "raspberry-pi-5").output)
    assert shown == json.loads(invoke("show", "raspberry-pi-5", "--json").output)
    assert shown["sources"][0]["source"].startswith("https://")
    mine = tmp_path / "mine.yaml"
    mine.write_text(GENERIC.read_text())
    assert yaml.safe_load(invoke("show", mine).output)["family"] == "generic"


@pytest.mark.parametrize("name", ["nano", "nowhere.yaml"])
def test_a_profile_that_is_not_there_exits_with_1(name):
    result = invoke("show", name)
    assert result.exit_code == 1
    assert name in result.output


def test_the_profile_of_another_machine_s_files_is_told_with_the_reason():
    result = invoke("detect", "--root", MACHINES / "jetson-xavier-nx", "--json")
    told = json.loads(result.output)
    assert (told["profile"], told["certain"]) == ("jetson-xavier-nx", True)
    assert told["machine"]["l4t"] == "35.4.1"
    text = invoke("detect", "--root", MACHINES / "rock-5b").output
    assert text.startswith("generic-arm: no profile is for this board (Radxa ROCK 5B")


def test_this_machine_has_a_profile():
    result = invoke("detect", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["profile"] in firmware_profiles.names()


def test_a_root_that_is_not_there_makes_no_sense():
    assert invoke("detect", "--root", "/nowhere").exit_code == 2


def test_files_are_checked_and_each_is_named(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(GENERIC.read_text() + "limits: {thread: 1}\n")
    assert invoke("validate", GENERIC).exit_code == 0
    result = invoke("validate", GENERIC, wrong)
    assert result.exit_code == 1
    assert f"{GENERIC}: fits" in result.output
    assert "limits.thread: unknown field; did you mean 'threads'?" in result.output
    told = json.loads(invoke("validate", GENERIC, wrong, "--json").output)
    assert [one["fits"] for one in told] == [True, False]
    assert invoke("validate").exit_code == 2
