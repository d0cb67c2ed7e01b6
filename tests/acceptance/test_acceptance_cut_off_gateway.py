"""A gateway that is cut off in the middle of a round: from central, or from its own region.

Central and one region have a broker each. Cut off from central, the gateway serves its region -
also after it was killed - and reconciles when the way is back; what it took into custody counts.
"""

import sqlite3
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from schemas.envelope import decode_frame
from schemas.messages import NoJob, Receipt
from schemas.topics import Kind, parse
from tests.support.brokers import mosquitto_broker
from tests.support.cuttable_link import CuttableLink, cuttable_link
from tests.support.fleet import Fleet, Shape
from tests.support.fleet_books import Books, device_jobs
from tests.support.fleet_watch import Tap

GATEWAY = "gateway-south"
NORTH, SOUTH = ("n1", "n2"), ("s1", "s2")
ROUNDS = 3
PATIENCE_S = 60.0
POLL_S = 0.05
#: Two retry periods of a minute: so long may it take until a healed gateway's updates count.
HEALED_WITHIN_S = 120.0
#: By size of the update: as float32, 12 KB ride inline, 460 KB are pulled in chunks.
HIDDEN = {"small": [32], "large": [300, 300]}


@dataclass
class Region:
    """The fleet, and the two ways of its southern gateway."""

    fleet: Fleet
    uplink: CuttableLink
    downlink: CuttableLink
    tap: Tap

    def custody(self):
        """Return the devices whose updates the gateway has."""
        path = self.fleet.state_dir(GATEWAY) / "gateway.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return {device for (device,) in database.execute("SELECT device FROM outbox")}

    def told(self, device, kind, model):
        """Return what a device was told on one kind of topic, the oldest first."""
        found = [
            decode_frame(seen.payload or b"")
            for seen in list(self.tap.seen)
            if (topic := parse(seen.topic)).kind is kind
            and topic.address is not None
            and topic.address.node == device
        ]
        return [frame.body(model) for frame in found if frame.header.type == model.TYPE]


@pytest.fixture
def region(tmp_path):
    with ExitStack() as stack:
        central, south = (stack.enter_context(mosquitto_broker()) for _ in range(2))
        uplink, downlink = (
            stack.enter_context(cuttable_link(broker.port)) for broker in (central, south)
        )
        devices = ("n1", "s1", "n2", "s2")  # dealt to the regions in turn
        fleet = stack.enter_context(Fleet(tmp_path, central, Shape(devices=devices)))
        for device in SOUTH:
            command = fleet.program(device).command
            command[command.index(central.url)] = south.url
        command = fleet.program(GATEWAY).command
        command[command.index(central.url)] = downlink.url
        command += ["--uplink", uplink.url]
        tap = Tap(south.port, "fl/v1/south/+/dn/#", keep_bytes=512 * 1024)
        stack.callback(tap.close)
        for name in SOUTH:
            fleet.program(name).start()
        fleet.start("central", "gateway-north", GATEWAY, *NORTH)
        yield Region(fleet, uplink, downlink, tap)


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(POLL_S)
    return found


def begin(region, task, size):
    """Return in the middle of the first round: the north has reported, the south stands still."""
    fleet = region.fleet
    fleet.submit({"task": "all-there", "model": "mlp", "data": "digits", "min_clients": 5})
    fleet.wait_for("all-there", lambda status: status.get("devices_online") == len(NORTH + SOUTH))
    fleet.control("all-there", "cancel")
    fleet.freeze(*SOUTH)
    fleet.submit(
        {
            "task": task,
            "model": "mlp",
            "model_params": {"hidden": HIDDEN[size]},
            "data": "digits",
            "rounds": ROUNDS,
            "min_clients": 4,
            "codec": "raw-f32",
        }
    )
    fleet.wait_for(task, lambda status: status.get("reported") == len(NORTH))


def finish(region, task):
    """Wait for the end of the task, and look into the books."""
    began_s = time.monotonic()
    region.fleet.wait_for(task, lambda status: status["committed"] >= 1, HEALED_WITHIN_S)
    print(f"\n{task}: counted {time.monotonic() - began_s:.1f} s after the way was back")  # noqa: T201 - seen with -s
    status = region.fleet.complete(task, within_s=HEALED_WITHIN_S)
    assert (status["committed"], status["abandoned"], status["late"]) == (ROUNDS, 0, 0)
    books = Books(region.fleet.state_dir("central"), task)
    books.check()
    assert books.recompute() == [record.model_sha256 for record in books.committed]
    for record in books.committed:
        assert record.contributors == ("n1", "n2", "s1", "s2")
    for device in SOUTH:
        state_dir = region.fleet.state_dir(device)
        wait_until(
            lambda d=state_dir: set(device_jobs(d, task).values()) == {"done"},
            f"{device} has its receipts",
        )
        final = [one for one in region.told(device, Kind.RECEIPT, Receipt) if one.is_final]
        assert {one.status for one in final} <= {"accepted", "duplicate"}
        assert all(books.knows(one) for one in final)
    assert region.custody() == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.long)])
def test_cut_off_from_central_a_gateway_serves_its_region_and_then_reconciles(region, size):
    task = f"cut-{size}"
    begin(region, task, size)
    region.uplink.cut()
    region.fleet.thaw(*SOUTH)
    wait_until(lambda: region.custody() == set(SOUTH), "both updates are in custody")
    for device in SOUTH:
        held = lambda d=device: region.told(d, Kind.RECEIPT, Receipt)  # noqa: E731
        wait_until(held, f"{device} is told that its update is held")
        assert {one.status for one in held()} == {"held"}

    region.fleet.kill(GATEWAY)
    region.fleet.program(GATEWAY).start()
    assert region.custody() == set(SOUTH)
    region.fleet.program("s1").kill()
    before = len(region.told("s1", Kind.TASK, NoJob))
    region.fleet.program("s1").start()
    wait_until(
        lambda: len(region.told("s1", Kind.TASK, NoJob)) > before,
        "the question of a device is answered",
    )
    assert device_jobs(region.fleet.state_dir("s1"), task) == {1: "uploading"}
    assert region.fleet.statuses(task)[-1]["reported"] == len(NORTH)

    region.uplink.heal()
    finish(region, task)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_cut_off_from_its_region_a_gateway_goes_on_when_that_is_back(region):
    begin(region, "cut-south", "large")
    region.downlink.cut()
    region.fleet.thaw(*SOUTH)
    for device in SOUTH:
        state_dir = region.fleet.state_dir(device)
        wait_until(
            lambda d=state_dir: device_jobs(d, "cut-south") == {1: "uploading"},
            f"{device} has trained what it was given before",
        )
    assert region.custody() == set()
    region.downlink.heal()
    finish(region, "cut-south")
