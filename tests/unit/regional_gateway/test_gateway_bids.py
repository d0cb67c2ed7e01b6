"""Bids for a round's uplink budget: passed on at once, pulled only when central asks."""

import pytest
from gateway_rig import Device, body, receipts, sha, take

from schemas.bids import Bid
from schemas.envelope import decode_frame
from schemas.limits import DEFAULT_CHUNK_BYTES
from schemas.messages import Need, UpdateManifest
from schemas.topics import Kind

DATA = b"a small update"
LATER_S = 300


def bid(data=DATA, gain=1.0):
    return Bid(gain, 0, len(data)).encode()


def offer(rig, device, data=DATA, **more):
    return rig.offer(device, data, **({"inline": False, "bid": bid(data)} | more))


def ask(rig, device, data=DATA):
    xfer = device.xfer(data)
    rig.from_central(Kind.NEED, rig.central.need(xfer, (0,)), xfer=xfer)


def pulled(rig):
    return [body(message, Need).xfer for message in take(rig.down, Kind.NEED)]


def manifests(rig):
    return [message.payload for message in take(rig.up, Kind.MANIFEST)]


def test_a_bid_goes_up_and_its_object_stays_where_it_is(rig):
    (device,) = rig.born("a")
    payload = offer(rig, device)
    assert manifests(rig) == [payload]
    rig.pass_time(LATER_S)
    assert pulled(rig) == []
    assert rig.rows() == []
    assert receipts(rig, device) == []


def test_without_an_uplink_a_bid_is_not_pulled_either(rig):
    (device,) = rig.born("a")
    rig.disconnect("uplink")
    payload = offer(rig, device)
    rig.pass_time(LATER_S)
    assert pulled(rig) == []
    take(rig.up, Kind.MANIFEST)
    rig.connect("uplink")
    assert manifests(rig) == [payload]


def test_what_central_asks_for_is_pulled_taken_into_custody_and_served(rig):
    (device,) = rig.born("a")
    offer(rig, device)
    ask(rig, device)
    rig.give_chunks(device, DATA)
    assert rig.rows() == [(device.xfer(DATA), sha(DATA))]
    assert [one.status for one in receipts(rig, device)] == ["held"]
    assert [message.payload for message in take(rig.up, Kind.CHUNK)] == [DATA]
    rig.receipt(device, DATA)
    assert [one.status for one in receipts(rig, device)] == ["accepted"]
    assert rig.rows() == []


def test_what_is_not_granted_ends_with_centrals_word_untouched(rig):
    (device,) = rig.born("a")
    offer(rig, device)
    rig.receipt(device, DATA, status="late", code="E_BUDGET")
    assert [one.is_over_budget for one in receipts(rig, device)] == [True]
    offer(rig, device)
    assert [one.is_over_budget for one in receipts(rig, device)] == [True]
    assert pulled(rig) == []


def test_a_repeated_bid_goes_up_again(rig):
    (device,) = rig.born("a")
    first = offer(rig, device)
    again = offer(rig, device)
    assert manifests(rig) == [first, again]


def test_central_that_begins_a_new_life_is_told_the_bids_again(rig):
    one, other = rig.born("a", "b")
    payloads = {offer(rig, one), offer(rig, other, b"another")}
    manifests(rig)
    rig.arrive("uplink", "fl/v1/ctl/central/state", rig.central.state(boot=6))
    rig.settle()
    assert set(manifests(rig)) == payloads


def test_a_gateway_killed_before_the_grant_hears_the_bid_again_from_its_device(rig):
    (device,) = rig.born("a")
    offer(rig, device)
    rig.restart()
    ask(rig, device)
    assert pulled(rig) == []
    payload = offer(rig, device)
    assert payload in manifests(rig)
    ask(rig, device)
    assert pulled(rig) == [device.xfer(DATA)]


def test_bids_take_no_room_from_what_is_in_custody(rig):
    devices = rig.born("a", "b", "c")
    quota = rig.settings.custody_quota_bytes
    size = quota // 2 + 1
    for device in devices:
        payload = claim(device, size)
        xfer = body_of(payload).xfer
        rig.from_device(device, Kind.MANIFEST, payload, xfer=xfer)
    assert len(manifests(rig)) == 3
    assert [receipts(rig, device) for device in devices] == [[], [], []]


def test_a_bid_for_more_than_the_whole_quota_is_refused(rig):
    (device,) = rig.born("a")
    payload = claim(device, rig.settings.custody_quota_bytes + 1)
    rig.from_device(device, Kind.MANIFEST, payload, xfer=body_of(payload).xfer)
    assert [one.code for one in receipts(rig, device)] == ["E_QUOTA"]


def test_a_grant_without_room_waits_until_there_is_some(rig):
    one, other = rig.born("a", "b")
    size = rig.settings.custody_quota_bytes // 2 + 1
    xfers = []
    for device in (one, other):
        payload = claim(device, size)
        xfers.append(body_of(payload).xfer)
        rig.from_device(device, Kind.MANIFEST, payload, xfer=xfers[-1])
        rig.from_central(Kind.NEED, rig.central.need(xfers[-1], (0,)), xfer=xfers[-1])
    assert set(pulled(rig)) == {xfers[0]}
    receipt = rig.central.receipt(xfers[0], body_of(claim(one, size)).object.sha256, "late")
    rig.from_central(Kind.RECEIPT, receipt, xfer=xfers[0])
    rig.from_central(Kind.NEED, rig.central.need(xfers[1], (0,)), xfer=xfers[1])
    assert set(pulled(rig)) == {xfers[1]}


def test_a_bid_that_rides_inline_is_refused(rig):
    (device,) = rig.born("a")
    offer(rig, device, inline=True)
    assert [(one.status, one.code) for one in receipts(rig, device)] == [("rejected", "E_SCHEMA")]


def test_a_bid_of_a_device_that_is_gone_is_forgotten(rig):
    (device,) = rig.born("a")
    offer(rig, device)
    rig.pass_time(1000, step_s=50)
    ask(rig, device)
    assert pulled(rig) == []


def test_a_bid_that_is_repeated_is_kept_however_long_its_round_lasts(rig):
    (device,) = rig.born("a")
    for _ in range(20):
        offer(rig, device)
        rig.pass_time(60, step_s=20)
    ask(rig, device)
    assert pulled(rig) == [device.xfer(DATA)]


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_bid_in_anothers_name_is_refused(rig, name):
    device, _ = rig.born("a", "b")
    payload = Device(name).manifest(DATA, inline=False, bid=bid(), src="b")
    rig.from_device(device, Kind.MANIFEST, payload, xfer=device.xfer(DATA))
    assert manifests(rig) == []


def claim(device, size):
    """Return a manifest with a bid of an object of any size; there is no such object."""
    payload = device.manifest(DATA, inline=False)
    found = body_of(payload)
    described = found.object.model_copy(update={"size": size, "chunk_bytes": DEFAULT_CHUNK_BYTES})
    tail = bytes(described.tail_bytes())
    text = Bid(1.0, 0, size).encode()
    return device.manifest(DATA, inline=False, object=described, bid=text, tail=tail)


def body_of(payload):
    return decode_frame(payload).body(UpdateManifest)
