"""The benchmark of failpoints: its figures, and programs that count what they come by."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.failpoint_cost import Call, Share, counted
from benchmarks.fleet import noop_plan
from fedfleet.testbed.plan import Place


def test_a_call_is_held_against_an_empty_function():
    assert Call(failpoint_ns=60.0, empty_ns=40.0).ratio == 1.5


def test_the_share_of_a_round_is_that_of_all_processes_together():
    share = Share(devices=2, round_s=0.05, visits={"central": 300.0, "d1": 200.0})
    assert share.of_round(Call(100.0, 50.0)) == pytest.approx(500 * 100e-9 / 0.05)


def test_every_service_counts_and_keeps_its_arguments(tmp_path):
    place = Place(tmp_path, 1, "mosquitto", is_root=False)
    plan = noop_plan(2, 3, place)
    found = counted(plan, tmp_path)
    assert found.broker == plan.broker
    for before, after in zip(plan.services, found.services, strict=True):
        at = before.argv.index("fedfleet")
        file = str(tmp_path / f"{before.name}.visits")
        assert after.argv[at : at + 2] == ("benchmarks.visits", file)
        assert after.argv[at + 2 :] == before.argv[at + 1 :]


def test_a_program_that_counts_writes_its_count_when_it_ends(tmp_path):
    file = tmp_path / "visits"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.visits", str(file), "failpoints", "--json"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    assert file.read_text() == "0"
