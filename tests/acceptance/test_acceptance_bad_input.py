"""What does not fit is refused in words, and what runs is not disturbed by it.

One task is held open all the while: its last client is frozen until everything was tried.
"""

import json
import zlib

import numpy as np
import pytest

from schemas.envelope import decode_frame
from schemas.ids import derived_task_id, transfer_id
from schemas.limits import KIB, MIB
from schemas.messages import Receipt, UpdateManifest
from schemas.topics import Address, Kind, Topic
from tests.support import fleet_watch
from tests.support.fleet import SUBMIT, running_fleet
from tests.support.fleet_books import Books
from tests.support.fleet_watch import Tap
from transport.frames import FrameWriter
from transport.objects import describe
from updates.codecs.header import pack
from updates.codecs.raw_f32 import RawF32Codec

FROZEN = "d4"
DRILL = {"model": "mlp", "data": "digits", "training": {"epochs": 0}, "codec": "raw-f32"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Yield a fleet with a task ``closed`` that ended without d4 and ``long`` that waits for it."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as running:
        running.freeze(FROZEN)
        running.submit({**DRILL, "task": "closed", "rounds": 1, "min_clients": 3, "cohort": 4})
        running.complete("closed")
        running.submit({**DRILL, "task": "long", "rounds": 3, "min_clients": 4})
        running.wait_for("long", lambda status: status["reported"] == 3)
        yield running
        running.thaw(FROZEN)
        assert running.complete("long")["committed"] == 3
        Books(running.state_dir("central"), "long").check()


@pytest.fixture(autouse=True)
def _the_long_task_goes_on(fleet):
    yield
    status = fleet.retained("long")
    assert (status["state"], status["round"], status["reported"]) == ("running", 1, 3)
    assert all(program.is_running for program in fleet.programs.values())


def rejection(fleet, text, task=None):
    """Publish a submission; return the reason in its retained status."""
    payload = text if isinstance(text, bytes) else text.encode()
    fleet.publish(SUBMIT, payload)
    name = task or derived_task_id(payload)
    status = fleet.wait_for(name, lambda status: status["state"] != "waiting", 20.0)
    assert status["state"] == "rejected"
    assert fleet.retained(name) == status
    return status["reason"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_client": 2}, ["min_client", "min_clients"]),
        ({"training": {"epoch": 2}}, ["training.epoch", "epochs"]),
        ({"rounds": 0}, ["rounds", "0", "1"]),
        ({"model": "resnet1000"}, ["model", "resnet1000", "mlp"]),
        ({"model": "os:system"}, ["model", "os:system"]),
        ({"model": "/etc/passwd"}, ["model", "/etc/passwd"]),
        ({"min_clients": 5, "cohort": 4}, ["min_clients", "5", "cohort", "4"]),
        ({"codec": "zip"}, ["codec", "zip", "int8"]),
    ],
)
def test_a_task_with_a_wrong_field_is_rejected_by_name_value_and_limit(fleet, changes, words):
    reason = rejection(fleet, json.dumps({**DRILL, **changes}))
    for word in words:
        assert word in reason, reason


def test_what_is_no_json_is_rejected(fleet):
    assert "JSON" in rejection(fleet, "{model: mlp}")


def test_a_task_that_needs_more_devices_than_there_are_waits_and_gives_up(fleet):
    fleet.submit({**DRILL, "task": "crowd", "min_clients": 9, "selection_timeout_s": 3})
    waiting = fleet.wait_for("crowd", lambda status: status.get("reason"))
    assert waiting["state"] == "waiting"
    assert waiting["reason"].startswith("3 devices fit, 9 are needed (1 busy)")
    failed = fleet.wait_for("crowd", lambda status: status["state"] == "failed", 10.0)
    assert "3 devices fit, 9 are needed" in failed["reason"]
    assert "gave up after 3 s (selection_timeout_s)" in failed["reason"]


def test_a_submission_of_900_kib_is_rejected_with_both_sizes(fleet):
    text = json.dumps({**DRILL, "task": "x" * 900 * KIB})
    reason = rejection(fleet, text)
    assert reason == f"message: {len(text)} bytes, at most 65536 are allowed"


def test_a_packet_of_2_mib_is_refused_by_the_broker_and_nobody_notices(fleet):
    done = fleet_watch.publish(fleet.broker.port, SUBMIT, b"{" + b" " * 2 * MIB + b"}")
    assert done.returncode != 0


def test_a_repeated_submission_is_the_same_task(fleet):
    text = json.dumps({**DRILL, "rounds": 2, "min_clients": 3, "seed": 7})
    task = derived_task_id(text.encode())
    fleet.submit(text)
    fleet.submit(text)
    fleet.complete(task)
    fleet.submit(text)
    again = fleet.submit({**DRILL, "task": "long", "rounds": 77})
    known = fleet.wait_for(task, lambda status: status["state"] == "completed")
    assert known["committed"] == 2
    assert known["updates_accepted"] in (6, 7, 8)
    assert fleet.retained(again)["rounds"] == 3
    same = [t for t in fleet.watcher.newest() if t.startswith(f"fl/v1/ctl/task/{task}")]
    assert same == [f"fl/v1/ctl/task/{task}/status"]


# -- updates, by hand -----------------------------------------------------------------------


class Forger:
    """Publishes updates as a device would, and reads the receipts."""

    def __init__(self, fleet, tap, device, region, boot):
        self._fleet = fleet
        self._tap = tap
        self._device = device
        self._address = Address(region, device)
        self._frames = FrameWriter(device, boot, np.random.default_rng(), lambda: 1.0)

    def offer(self, task, number, values, **changes):
        """Publish one update inline; return the receipt that comes back."""
        kept = Books(self._fleet.state_dir("central"), task)
        body = np.asarray(values, "<f4")
        payload = pack(RawF32Codec.number, kept.layout.size, (body.data,))
        manifest, tail = describe(payload, inline=True)
        fields = {
            "xfer": transfer_id(self._device, task, number, manifest.sha256),
            "task": task,
            "round": number,
            "device": self._device,
            "object": manifest,
            "codec": "raw-f32",
            "layout_sha256": kept.task.plan.layout_sha256,
            "base_model_sha256": kept.round(number).base_model_sha256,
            "num_examples": 10,
            **changes,
        }
        frame = self._frames.frame(
            UpdateManifest(**fields), task=task, round_number=number, tail=tail
        )
        topic = Topic(Kind.MANIFEST, self._address, xfer=fields["xfer"])
        self._fleet.publish(topic.name, frame)
        return self._final_receipt(fields["xfer"])

    def _final_receipt(self, xfer):
        topic = Topic(Kind.RECEIPT, self._address, xfer=xfer).name

        def found():
            passed = [seen.payload for seen in self._tap.seen if seen.topic == topic]
            bodies = [decode_frame(payload).body(Receipt) for payload in passed]
            return next((receipt for receipt in bodies if receipt.is_final), None)

        receipt = self._fleet.watcher.wait(found, 20.0)
        assert receipt is not None, topic
        return receipt


@pytest.fixture(scope="module")
def tap(fleet):
    opened = Tap(fleet.broker.port, "fl/v1/+/+/dn/rcpt/+")
    yield opened
    opened.close()


@pytest.fixture
def forger(fleet, tap):
    region = fleet.shape.region_of(FROZEN)
    return Forger(fleet, tap, FROZEN, region, fleet.boot(FROZEN))


@pytest.fixture
def values(fleet, request):
    """Return an update unlike any other: a transfer that was refused once stays refused."""
    size = Books(fleet.state_dir("central"), "long").layout.size
    return np.random.default_rng(zlib.crc32(request.node.name.encode())).random(size, np.float32)


def test_an_update_with_nan_is_rejected_by_place_and_value(forger, values):
    values[77] = np.nan
    receipt = forger.offer("long", 1, values)
    assert (receipt.status, receipt.code) == ("rejected", "E_NONFINITE")
    assert receipt.detail == "update: value 77 is nan, every value must be finite"


def test_an_update_of_the_wrong_length_is_rejected_with_both_lengths(forger, values):
    receipt = forger.offer("long", 1, values[:-1])
    assert (receipt.status, receipt.code) == ("rejected", "E_PAYLOAD")
    assert receipt.detail == (
        f"update: body length in bytes is {values.nbytes - 4}, expected {values.nbytes}"
    )


def test_an_update_of_another_model_is_rejected_with_both_digests(forger, values):
    receipt = forger.offer("long", 1, values, layout_sha256="0" * 64)
    assert (receipt.status, receipt.code) == ("rejected", "E_PLAN")
    assert "layout_sha256: '000" in receipt.detail


def test_an_update_for_a_closed_round_is_late(fleet, forger, values):
    receipt = forger.offer("closed", 1, values)
    assert (receipt.status, receipt.code) == ("late", "E_LATE")
    assert receipt.detail == "round: 1 is committed"
    status = fleet.wait_for("closed", lambda status: status["late"] == 1)
    assert status["updates_accepted"] == 3


def test_an_update_from_a_device_that_nobody_knows_is_rejected(fleet, tap, values):
    receipt = Forger(fleet, tap, "ghost", "north", 1).offer("long", 1, values)
    assert (receipt.status, receipt.code) == ("rejected", "E_UNKNOWN_DEVICE")
    assert receipt.detail == "device: 'ghost' is not known in region 'north'"


def test_an_update_in_the_name_of_another_device_is_rejected(forger, values):
    receipt = forger.offer("long", 1, values, device="d1")
    assert (receipt.status, receipt.code) == ("rejected", "E_IDENTITY")
    assert "d4" in receipt.detail
    assert "d1" in receipt.detail
