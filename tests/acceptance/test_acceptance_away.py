"""Devices that were away while rounds went on: killed, or alive with the radio off.

Both owe an update of a round that is long over when they are back. It is late and said to be so,
nothing of it is in a model, and both work in the present round.
"""

import sqlite3
import time
from contextlib import ExitStack, closing

import pytest

from tests.support.brokers import mosquitto_broker
from tests.support.cuttable_link import cuttable_link
from tests.support.fleet import Fleet, Shape
from tests.support.fleet_books import Books, device_jobs, receipts
from tests.support.fleet_watch import Tap

TASK = "goes-on"
KILLED, RADIO_OFF = "d4", "d5"
AWAY = (KILLED, RADIO_OFF)
STAYING = ("d1", "d2", "d3")
DEVICES = (*STAYING, *AWAY)
ROUNDS = 40
#: So many rounds are committed while the two are away.
MISSED = 3
#: Long enough for a link to be cut in the middle of it.
EPOCHS = 60
PATIENCE_S = 60.0
POLL_S = 0.02


@pytest.fixture
def away(tmp_path):
    """A running fleet whose devices in ``AWAY`` each have a link of their own."""
    with ExitStack() as stack:
        broker = stack.enter_context(mosquitto_broker())
        links = {name: stack.enter_context(cuttable_link(broker.port)) for name in AWAY}
        shape = Shape(devices=DEVICES)
        fleet = stack.enter_context(Fleet(tmp_path, broker, shape))
        for name, link in links.items():
            command = fleet.program(name).command
            command[command.index(broker.url)] = link.url
        fleet.start()
        fleet.links = links
        yield fleet


@pytest.fixture
def tap(away):
    opened = Tap(away.broker.port, "fl/v1/+/+/dn/rcpt/+")
    yield opened
    opened.close()


def wait_until(condition, what):
    """Return what a condition gives once that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(POLL_S)
    return found


def rows(fleet, device, query):
    path = fleet.state_dir(device) / "device.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def in_training(fleet, device):
    return rows(fleet, device, "SELECT round FROM jobs WHERE state = 'training'")


def owed(fleet, device):
    """Return (round, transfer) of each update that a device has not had a receipt for."""
    return rows(fleet, device, "SELECT round, xfer FROM outbox")


def leave_with_an_update(fleet):
    """Cut both off in the middle of a round, let them end it, and kill one of them.

    Returns what both owe, by device.
    """
    both = lambda: all(in_training(fleet, device) for device in AWAY)  # noqa: E731
    wait_until(both, "both devices train")
    for link in fleet.links.values():
        link.cut()
    debts = {
        device: wait_until(lambda d=device: owed(fleet, d), f"{device} has its update")
        for device in AWAY
    }
    fleet.kill(KILLED)
    return {device: debt[0] for device, debt in debts.items()}


@pytest.mark.timeout(300)
def test_devices_that_were_away_are_late_with_what_they_owe_and_join_the_present_round(away, tap):
    away.submit(
        {
            "task": TASK,
            "model": "mlp",
            "data": "digits",
            "rounds": ROUNDS,
            "min_clients": 3,
            "cohort": len(DEVICES),
            "training": {"epochs": EPOCHS},
        }
    )
    away.wait_for(TASK, lambda status: status["committed"] >= 1)
    debts = leave_with_an_update(away)
    last = max(number for number, _ in debts.values())
    status = away.wait_for(TASK, lambda status: (status["round"] or 0) > last + MISSED)
    assert owed(away, RADIO_OFF) == [debts[RADIO_OFF]]

    for link in away.links.values():
        link.heal()
    away.restart(KILLED)
    for device in AWAY:
        wait_until(
            lambda d=device: debts[d] not in owed(away, d), f"{device} has its last receipt"
        )
    late = away.wait_for(
        TASK, lambda status: status["late"] >= len(AWAY) and status["cohort"] == len(DEVICES)
    )
    assert late["round"] >= status["round"]
    away.freeze("d1", "d2")  # from here on no round ends without the two
    joined = away.wait_for(TASK, lambda now: (now["round"] or 0) > late["round"] + 3, 120.0)
    away.thaw("d1", "d2")
    away.control(TASK, "cancel")
    away.wait_for(TASK, lambda status: status["state"] == "cancelled")

    books = Books(away.state_dir("central"), TASK)
    books.check()
    assert books.recompute() == [record.model_sha256 for record in books.committed]
    counted = {(row.round, row.device) for row in books.contributions()}
    for device, (number, xfer) in debts.items():
        assert (number, device) not in counted
        assert books.round(number).summary.late >= 1
        assert {one.status for one in receipts(tap) if one.xfer == xfer} - {"held"} == {"late"}
        settled = f"SELECT settled FROM jobs WHERE round = {number}"
        assert rows(away, device, settled) == [("discarded",)]
        assert device_jobs(away.state_dir(device), TASK)[number] == "done"
        assert any(
            late["round"] < number <= joined["round"] and device == who for number, who in counted
        )
    accepted = [one for one in receipts(tap) if one.status == "accepted"]
    assert accepted
    assert all(books.knows(one) for one in accepted)
