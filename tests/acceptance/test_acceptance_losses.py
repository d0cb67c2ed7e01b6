"""Processes that die in the middle of a round: nothing is lost, nothing counts twice."""

import numpy as np
import pytest

from tests.support.fleet import Shape, is_final, running_fleet
from tests.support.fleet_books import Books, device_jobs, receipts
from tests.support.fleet_watch import Tap

#: Held back so that a round is certainly open when something is killed.
LAST = "d4"
MIN_CLIENTS = 3
#: So many that the second one is still to come when the first commit is noticed.
ROUNDS = 10


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory):
    shape = Shape(environment={"MIN_CLIENTS": str(MIN_CLIENTS)})
    with running_fleet(tmp_path_factory.mktemp("fleet"), shape) as running:
        yield running


@pytest.fixture
def fleet(whole_fleet):
    whole_fleet.heal()
    return whole_fleet


@pytest.fixture
def tap(fleet):
    opened = Tap(fleet.broker.port, "fl/v1/+/+/dn/rcpt/+")
    yield opened
    opened.close()


def books(fleet, task):
    return Books(fleet.state_dir("central"), task)


def hold_a_round_open(fleet, task, reported):
    """Freeze one device after the first commit; return once the others have reported."""
    fleet.wait_for(task, lambda status: status["committed"] >= 1)
    fleet.freeze(LAST)
    return fleet.wait_for(
        task,
        lambda status: status.get("phase") == "reporting" and status["reported"] >= reported,
    )


@pytest.mark.parametrize("victim", ["central", "gateway-south", LAST, "broker"])
def test_a_task_survives_the_sudden_death_of(victim, fleet, tap):
    task = fleet.submit(
        {
            "task": f"kill-{victim}",
            "model": "mlp",
            "data": "digits",
            "rounds": ROUNDS,
            "min_clients": 4,
        }
    )
    held = hold_a_round_open(fleet, task, reported=3)
    assert not is_final(held)
    fleet.kill(victim)
    if victim != LAST:
        fleet.thaw(LAST)
    fleet.restart(victim)
    status = fleet.complete(task)
    assert (status["committed"], status["rounds"]) == (ROUNDS, ROUNDS)

    kept = books(fleet, task)
    kept.check()
    digests = kept.recompute()
    assert digests == [record.model_sha256 for record in kept.committed]
    assert digests[-1] == fleet.retained(task)["model_sha256"]
    assert not np.array_equal(kept.first_model(), kept.final_model())
    accepted = [receipt for receipt in receipts(tap) if receipt.status == "accepted"]
    assert accepted
    assert all(kept.knows(receipt) for receipt in accepted)
    for device in fleet.shape.devices:
        jobs = device_jobs(fleet.state_dir(device), task)
        done = {number for number, state in jobs.items() if state == "done"}
        in_tables = {row.round for row in kept.contributions() if row.device == device}
        assert done <= in_tables


def test_when_one_of_four_dies_every_round_goes_on_with_the_three_others(fleet):
    task = fleet.submit({"task": "one-dies", "model": "mlp", "data": "digits", "rounds": ROUNDS})
    fleet.wait_for(task, lambda status: status["committed"] >= 1)
    fleet.freeze("d3", LAST)
    fleet.wait_for(
        task, lambda status: status.get("phase") == "reporting" and status["reported"] == 2
    )
    hit = fleet.statuses(task)[-1]["round"]
    fleet.kill(LAST)
    fleet.thaw("d3")
    fleet.complete(task)
    rounds = {record.state.number: record for record in books(fleet, task).committed}
    assert max(rounds) > hit
    assert fleet.retained(task)["min_clients"] == MIN_CLIENTS
    for number in range(hit, max(rounds) + 1):
        assert rounds[number].contributors == ("d1", "d2", "d3")


def lose_two(fleet, **task):
    """Let a task lose two of four devices in the middle of a round; return (id, round)."""
    name = fleet.submit({"model": "mlp", "data": "digits", "rounds": ROUNDS, **task})
    fleet.wait_for(name, lambda status: status["committed"] >= 1)
    fleet.freeze("d3", LAST)
    held = fleet.wait_for(
        name, lambda status: status.get("phase") == "reporting" and status["reported"] == 2
    )
    fleet.kill("d3", LAST)
    return name, held


def test_with_two_of_four_dead_a_round_is_extended_and_says_so_in_numbers(fleet):
    drill = {"epochs": 0}
    task, held = lose_two(
        fleet, task="extends", on_shortfall="extend", deadline_s=6, training=drill
    )
    said = "2 of 3 clients reported by the deadline; extended, 1 of 2 times"
    extended = fleet.wait_for(task, lambda status: said in status.get("reason", ""))
    assert (extended["round"], extended["committed"]) == (held["round"], held["committed"])
    fleet.restart("d3")
    status = fleet.complete(task)
    assert (status["committed"], status["abandoned"]) == (ROUNDS, 0)
    rounds = {record.state.number: record for record in books(fleet, task).committed}
    assert rounds[held["round"]].contributors == ("d1", "d2", "d3")


def test_with_two_of_four_dead_a_round_is_abandoned_and_the_model_stays(fleet):
    task, held = lose_two(fleet, task="abandons", on_shortfall="abandon")
    status = fleet.wait_for(task, lambda status: status["abandoned"] == 1)
    assert status["model_sha256"] == held["model_sha256"]
    assert status["committed"] == held["committed"]
    ended = status["history"][-1]
    assert (ended["round"], ended["outcome"]) == (held["round"], "abandoned")
    assert ended["reason"] == "2 of 4 clients can still report, 3 are needed"
    waiting = fleet.wait_for(task, lambda status: "are needed" in status.get("reason", ""))
    assert waiting["reason"] == "2 devices fit, 3 are needed (2 offline)"
    rows = [row for row in books(fleet, task).contributions() if row.round == held["round"]]
    assert {row.device for row in rows} == {"d1", "d2"}
    assert {row.settled for row in rows} == {"discarded"}
    assert all("2 of 4 clients can still report" in row.reason for row in rows)
