"""A short chaos run as a person starts it: the promise holds, and the run says what it did."""

import json

import pytest

from tests.support.fleet_programs import run_verb

KILLS, UPDATES, SECONDS = 5, 9, 60


@pytest.mark.slow
def test_a_fleet_that_is_killed_at_random_loses_nothing_and_counts_nothing_twice(tmp_path):
    folder = tmp_path / "run"
    done = run_verb(
        "chaos", "--broker", "mosquitto", "--kills", str(KILLS), "--updates", str(UPDATES),
        "--devices", "3", "--seconds", str(SECONDS), "--seed", "4", "--training", "drill",
        "--pace", "1.5", "--out", str(folder), "--keep", "--json",
        within_s=170,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["holds"], found["broken"]
    assert (found["lost"], found["double"]) == (0, 0)
    assert found["updates_accepted"] == found["updates_receipted"] > 0
    assert found["models_recomputed"] == found["rounds_committed"] > 0
    assert found["update_bytes"] >= found["updates_accepted"] * 2**20
    assert found["kills"] > 0
    struck = [json.loads(line) for line in (folder / "faults.jsonl").read_text().splitlines()]
    assert sum(fault["kind"] == "kill" for fault in struck) == found["kills"]
    assert not found["missed"], "the machine is too slow, or nothing goes on under faults"
    assert done.returncode == 0
