"""A commit that fails undoes everything; the same events then have the effect that they had not."""

import pytest
from gateway_rig import GATEWAY, TASK, Device, large, receipts, sha, take

from schemas.limits import MIN_CHUNK_BYTES
from schemas.topics import Kind, Topic

SMALL = b"an update"
LARGE = large()


def birth(rig, device):
    rig.arrive("downlink", Topic(Kind.STATE, device.address), device.state())
    return lambda: [m.topic.device for m in take(rig.up, Kind.RELAYED)] == ["a"]


def assignment(rig, device):
    payload = rig.central.assignment(("a",))
    rig.arrive("uplink", Topic(Kind.TASK, GATEWAY), payload)
    return lambda: {m.payload for m in take(rig.down, Kind.TASK)} == {payload}


def status(rig, device):
    rig.from_central(Kind.TASK, rig.central.assignment(("a",)))
    payload = device.status("done")
    topic = Topic(Kind.JOB_STATUS, device.address, task=TASK)
    rig.arrive("downlink", topic, payload)
    return lambda: [m.payload for m in take(rig.up, Kind.RELAYED)] == [payload]


def manifest(rig, device):
    topic = Topic(Kind.MANIFEST, device.address, xfer=device.xfer(SMALL))
    rig.arrive("downlink", topic, device.manifest(SMALL))
    return lambda: (
        [r.status for r in receipts(rig, device)] == ["held"]
        and len(take(rig.up, Kind.MANIFEST)) >= 1
        and len(rig.rows()) == 1
    )


def receipt(rig, device):
    rig.offer(device, SMALL)
    receipts(rig, device)
    xfer = device.xfer(SMALL)
    payload = rig.central.receipt(xfer, sha(SMALL))
    rig.arrive("uplink", Topic(Kind.RECEIPT, GATEWAY, xfer=xfer), payload)
    return lambda: (
        [m.payload for m in take(rig.down, Kind.RECEIPT)] == [payload] and rig.rows() == []
    )


def last_chunk(rig, device):
    xfer = device.xfer(LARGE)
    rig.offer(device, LARGE, inline=False)
    rig.pass_time(2)
    for k in range(4):
        if k == 3:
            rig.settle()
        data = LARGE[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
        rig.arrive("downlink", Topic(Kind.CHUNK, device.address, xfer=xfer, k=k), data)
    return lambda: (
        [r.status for r in receipts(rig, device)] == ["held"]
        and rig.rows() == [(xfer, sha(LARGE))]
        and rig.custody_files() == [sha(LARGE)]
    )


@pytest.mark.parametrize("case", [birth, assignment, status, manifest, receipt, last_chunk])
def test_an_event_whose_commit_failed_has_its_effect_with_the_next(rig, case):
    device = Device("a")
    if case is not birth:
        rig.from_device(device, Kind.STATE, device.state())
        take(rig.up, Kind.RELAYED)
    has_effect = case(rig, device)
    rows, acked = rig.rows(), rig.acked
    rig.fail_next_commit()
    rig.turn()
    assert rig.loop.counts["storage_failures"] == 1
    assert (rig.rows(), rig.acked) == (rows, acked)
    rig.pass_time(6)
    assert rig.acked > acked
    assert has_effect()
