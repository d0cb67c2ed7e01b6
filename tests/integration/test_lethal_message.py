"""A message that ends central each time it comes: parked after three ends, named, and dropped."""

import json
import signal

import pytest

from tests.support.brokers import REPOSITORY
from tests.support.fleet import CENTRAL, SUBMIT, Shape, running_fleet
from tests.support.fleet_programs import run_verb

PLUGINS = REPOSITORY / "tests" / "support" / "plugins"
STATE = "fl/v1/ctl/central/state"


@pytest.fixture
def fleet(tmp_path):
    config = tmp_path / "central.toml"
    config.write_text('[strategies]\nlethal = "lethal_strategy:make"\n')
    shape = Shape(
        devices=("d1", "d2"),
        central=("--config", str(config)),
        environment={"MIN_CLIENTS": "2", "PYTHONPATH": str(PLUGINS)},
    )
    with running_fleet(tmp_path, shape) as running:
        yield running


def state(fleet):
    return json.loads(fleet.watcher.newest()[STATE])


def test_a_message_that_kills_central_three_times_is_parked_and_central_goes_on(fleet):
    lethal = {
        "task": "lethal",
        "model": "mlp",
        "strategy": "lethal",
        "strategy_params": {"is_lethal": True},
    }
    fleet.publish(SUBMIT, json.dumps(lethal).encode())
    central = fleet.program(CENTRAL)
    for _ in range(2):
        assert central.wait() == -signal.SIGKILL
        central.start()
    assert central.wait() == -signal.SIGKILL
    fleet._boots[CENTRAL] = fleet.boot(CENTRAL) or 0
    fleet.restart(CENTRAL)
    told = fleet.watcher.wait(lambda: state(fleet).get("parked") and state(fleet), 15.0)
    assert told, central.tail
    (note,) = told["parked_newest"]
    assert note["topic"] == SUBMIT
    assert "the program ended 3 times" in note["error"]
    rejected = fleet.wait_for("lethal", lambda status: status["state"] == "rejected")
    assert "parked" in rejected["reason"]

    good = {"task": "good", "model": "mlp", "data": "digits", "rounds": 1, "strategy": "lethal"}
    fleet.submit(good)
    fleet.complete("good")

    shown = run_verb("parked", "--state-dir", str(fleet.state_dir(CENTRAL)), "--json")
    (row,) = json.loads(shown.stdout)["parked"]
    assert (row["topic"], row["number"]) == (SUBMIT, note["number"])
    dropped = run_verb(
        "parked", "--state-dir", str(fleet.state_dir(CENTRAL)), "--drop", str(row["number"])
    )
    assert dropped.stdout == "1 dropped\n"
    assert fleet.watcher.wait(lambda: state(fleet)["parked"] == 0, 15.0)
