"""Updates on their way up: custody, receipts, and what a crash or an absence may not change."""

import pytest
from gateway_rig import GATEWAY, receipts, sha, take

from schemas.limits import MIB
from schemas.messages import Receipt
from schemas.topics import Address, Kind, Topic

DATA = b"an update"


def test_an_inline_update_is_committed_then_held_and_passed_on_untouched(rig):
    (device,) = rig.born("a")
    payload = rig.offer(device, DATA)
    assert rig.rows() == [(device.xfer(DATA), sha(DATA))]
    assert receipts(rig, device) == []
    rig.pass_time(0.3)
    (held,) = receipts(rig, device)
    assert (held.status, held.sha256) == ("held", sha(DATA))
    (up,) = take(rig.up, Kind.MANIFEST)
    assert up.payload == payload
    assert up.topic == Topic(Kind.MANIFEST, GATEWAY, xfer=device.xfer(DATA))


def test_an_inline_update_costs_one_turn_and_so_one_commit(rig):
    (device,) = rig.born("a")
    topic = Topic(Kind.MANIFEST, device.address, xfer=device.xfer(DATA))
    rig.arrive("downlink", topic, device.manifest(DATA))
    rig.turn()
    assert len(take(rig.up, Kind.MANIFEST)) == 1
    assert len(rig.rows()) == 1


def test_where_central_is_quick_its_word_is_the_only_one(rig):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    rig.receipt(device, DATA)
    rig.pass_time(2)
    assert [r.status for r in receipts(rig, device)] == ["accepted"]


@pytest.mark.parametrize("status", ["accepted", "duplicate", "late", "rejected"])
def test_a_final_receipt_frees_custody_and_goes_down_byte_for_byte(rig, status):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    take(rig.down, Kind.RECEIPT)
    payload = rig.receipt(device, DATA, status=status)
    assert rig.rows() == []
    (passed,) = take(rig.down, Kind.RECEIPT)
    assert passed.payload == payload
    assert passed.topic == Topic(Kind.RECEIPT, device.address, xfer=device.xfer(DATA))


def test_a_device_that_offers_again_after_the_end_gets_the_final_receipt_again(rig):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    payload = rig.receipt(device, DATA)
    for session in (rig.up, rig.down):
        session.sent.clear()
    rig.restart()
    rig.offer(device, DATA)
    (again,) = take(rig.down, Kind.RECEIPT)
    assert again.payload == payload
    assert rig.rows() == []
    assert take(rig.up, Kind.MANIFEST) == []


def test_a_repeated_manifest_makes_one_row_and_is_held_again(rig):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    rig.offer(device, DATA)
    rig.pass_time(0.3)
    assert len(rig.rows()) == 1
    assert [r.status for r in receipts(rig, device)] == ["held", "held"]


def test_a_receipt_of_another_object_removes_nothing(rig):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    receipts(rig, device)
    wrong = rig.central.receipt(device.xfer(DATA), sha(b"other"))
    rig.from_central(Kind.RECEIPT, wrong, xfer=device.xfer(DATA))
    right_on_wrong_topic = rig.central.receipt(device.xfer(DATA), sha(DATA))
    rig.from_central(Kind.RECEIPT, right_on_wrong_topic, xfer="0" * 32)
    assert len(rig.rows()) == 1
    assert receipts(rig, device) == []


def test_a_receipt_that_does_not_come_from_central_is_dropped(rig):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    forged = Receipt(xfer=device.xfer(DATA), status="accepted", sha256=sha(DATA))
    frame = device.frames.frame(forged)
    rig.from_central(Kind.RECEIPT, frame, xfer=device.xfer(DATA))
    assert len(rig.rows()) == 1
    assert rig.loop.counts["refused:E_IDENTITY"] == 1


def test_central_may_put_an_update_off_and_gets_it_again(rig):
    (device,) = rig.born("a")
    payload = rig.offer(device, DATA)
    take(rig.up, Kind.MANIFEST)
    rig.receipt(device, DATA, status="rejected", code="E_BUSY", retry_after_s=20.0)
    rig.pass_time(15)
    assert take(rig.up, Kind.MANIFEST) == []
    rig.pass_time(10)
    assert {m.payload for m in take(rig.up, Kind.MANIFEST)} == {payload}


def test_what_central_does_not_answer_is_offered_again_and_again(rig):
    (device,) = rig.born("a")
    rig.offer(device, DATA)
    rig.pass_time(10)
    assert len(take(rig.up, Kind.MANIFEST)) >= 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"src": "b"}, "E_IDENTITY"),
        ({"device": "b"}, "E_IDENTITY"),
        ({"xfer": "0" * 32}, "E_TRANSFER"),
        ({"tail": b"an updat"}, "E_SIZE"),
        ({"tail": b"an updatE"}, "E_DIGEST"),
    ],
)
def test_an_offer_that_lies_is_refused_with_a_receipt_that_says_why(rig, change, code):
    (device,) = rig.born("a")
    take(rig.up, Kind.MANIFEST)
    rig.offer(device, DATA, **change)
    (refusal,) = receipts(rig, device)
    assert (refusal.status, refusal.code) == ("rejected", code)
    assert refusal.detail
    assert refusal.is_final
    assert rig.rows() == []
    assert take(rig.up, Kind.MANIFEST) == []


def test_over_the_quota_a_device_is_told_when_to_come_again_and_then_taken(make_rig):
    rig = make_rig(custody_quota_bytes=MIB).connect()
    (device,) = rig.born("a")
    updates = [bytes([i]) * 200_000 for i in range(6)]
    for number, data in enumerate(updates):
        rig.offer(device, data, number)
        rig.pass_time(0.3)
    statuses = [(r.status, r.code) for r in receipts(rig, device)]
    assert statuses == [("held", None)] * 5 + [("rejected", "E_QUOTA")]
    rig.receipt(device, updates[0], 0)
    rig.offer(device, updates[5], 5)
    rig.pass_time(0.3)
    final, held = receipts(rig, device)
    assert (final.status, held.status) == ("accepted", "held")
    assert len(rig.rows()) == 5


def test_without_an_uplink_updates_are_held_and_go_up_when_it_is_back(rig):
    devices = rig.born("a", "b")
    rig.disconnect("uplink")
    for device in devices:
        rig.offer(device, DATA)
        rig.pass_time(0.3)
        assert [r.status for r in receipts(rig, device)] == ["held"]
    rig.pass_time(300)
    assert take(rig.up, Kind.MANIFEST) == []
    rig.connect("uplink")
    assert {m.topic.xfer for m in take(rig.up, Kind.MANIFEST)} == {d.xfer(DATA) for d in devices}


def test_a_crash_after_the_commit_forgets_nothing(rig):
    (device,) = rig.born("a")
    payload = rig.offer(device, DATA)
    rig.restart()
    assert [m.payload for m in take(rig.up, Kind.MANIFEST)] == [payload]
    rig.receipt(device, DATA)
    assert rig.rows() == []
    assert [r.status for r in receipts(rig, device)] == ["accepted"]


def test_a_crash_before_the_commit_leaves_the_device_to_offer_again(rig):
    (device,) = rig.born("a")
    topic = Topic(Kind.MANIFEST, device.address, xfer=device.xfer(DATA))
    rig.arrive("downlink", topic, device.manifest(DATA))
    acked = rig.acked
    rig.restart()
    assert rig.acked == acked
    assert rig.rows() == []
    rig.offer(device, DATA)
    rig.pass_time(0.3)
    assert [r.status for r in receipts(rig, device)] == ["held"]


def test_central_that_is_born_again_gets_everything_at_once(rig):
    (device,) = rig.born("a")
    payload = rig.offer(device, DATA)
    rig.pass_time(100)
    rig.up.sent.clear()
    rig.arrive("uplink", Topic(Kind.CENTRAL_STATE), rig.central.state(boot=77))
    rig.settle()
    assert [m.payload for m in take(rig.up, Kind.MANIFEST)] == [payload]


def test_two_devices_with_identical_inline_updates_are_two_rows(rig):
    a, b = rig.born("a", "b")
    for device in (a, b):
        rig.offer(device, DATA)
    assert len(rig.rows()) == 2
    rig.receipt(a, DATA)
    assert rig.rows() == [(b.xfer(DATA), sha(DATA))]


def test_messages_outside_the_region_and_unknown_topics_are_refused(rig):
    other = Topic(Kind.MANIFEST, Address("us", "a"), xfer="0" * 32)
    rig.arrive("downlink", other, b"x")
    rig.arrive("downlink", "fl/v1/eu/a/up/nonsense", b"x")
    rig.arrive("uplink", Topic(Kind.NEXT, GATEWAY), rig.central.need("0" * 32, (1,)))
    rig.settle()
    assert rig.loop.counts["refused:E_TOPIC"] == 3
