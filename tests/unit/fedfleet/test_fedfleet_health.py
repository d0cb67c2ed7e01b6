"""``fedfleet health``: what a probe gets to hear, and what it costs."""

import json
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from fedfleet.cli import cli
from transport.health_file import Health, write_health


@pytest.fixture
def ask(tmp_path):
    def run(*flags):
        return CliRunner().invoke(cli, ["health", "--state-dir", str(tmp_path), *flags])

    return run


def test_a_ready_program_is_healthy(ask, tmp_path):
    write_health(tmp_path, Health("ready", ("downlink", "uplink"), time.time(), 7))
    result = ask()
    assert (result.exit_code, result.output) == (
        0,
        "ready; sessions connected: downlink, uplink\n",
    )


@pytest.mark.parametrize("status", ["starting", "disconnected", "stopping"])
def test_any_other_state_is_not(ask, tmp_path, status):
    write_health(tmp_path, Health(status, (), time.time(), 7))
    result = ask()
    assert (result.exit_code, f"process 7 is {status}" in result.output) == (1, True)


def test_an_old_word_is_no_health(ask, tmp_path):
    write_health(tmp_path, Health("ready", ("main",), time.time() - 60, 7))
    assert "hangs or has ended" in ask().output
    assert ask("--max-age-s", "100").exit_code == 0


def test_no_word_at_all_is_a_failure_in_one_line(ask):
    result = ask()
    assert (result.exit_code, "no program has run" in result.output) == (1, True)


def test_an_age_of_nothing_makes_no_sense(ask):
    assert ask("--max-age-s", "0").exit_code == 2


def test_json_tells_the_report_and_what_is_wrong(ask, tmp_path):
    write_health(tmp_path, Health("disconnected", (), time.time(), 7))
    result = ask("--json")
    found = json.loads(result.output.splitlines()[0])
    assert (result.exit_code, found["status"], found["pid"]) == (1, "disconnected", 7)
    assert "disconnected" in found["problem"]


def test_a_probe_loads_neither_logging_nor_numpy_nor_pydantic(tmp_path):
    code = (
        "import sys\nfrom fedfleet.cli import cli\n"
        f"try: cli(['health', '--state-dir', {str(tmp_path)!r}])\nexcept SystemExit: pass\n"
        "print(sorted({'structlog', 'logging', 'numpy', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
