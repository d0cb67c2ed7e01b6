"""A gateway that is cut off: from central it serves its region, and it reconciles when it is back.

Cut off from its region's broker it forgets nothing, and goes on when that is back.
"""

import pytest
from gateway_rig import TASK, body, large, receipts, sha, take

from regional_gateway.adapters.store import RECEIPTS_KEPT_S
from schemas.envelope import decode_frame
from schemas.limits import MIB, MIN_CHUNK_BYTES
from schemas.messages import (
    Assignment,
    DeviceState,
    GatewayState,
    JobStatus,
    Next,
    NoJob,
    Settlement,
)
from schemas.topics import EVERYONE_LEVEL, Kind, Topic

DATA = b"an update"
ROUND = (TASK, 0)
#: One retry period, the longest: a minute.
PERIOD_S = 60.0
DAY_S = 86_400.0


@pytest.fixture
def cut_off(rig):
    """A gateway with two devices and an open round whose uplink has just gone."""
    rig.devices = rig.born("a", "b")
    rig.from_central(Kind.TASK, rig.central.assignment(("a", "b")))
    rig.confirm([ROUND])
    rig.disconnect("uplink")
    rig.up.sent.clear()
    rig.down.sent.clear()
    return rig


def answers(rig, device):
    """Return what the device was told of its job since the last call."""
    found = []
    for message in take(rig.down, Kind.TASK):
        if message.topic.address == device.address:
            frame = decode_frame(message.payload)
            found.append(frame.body(Assignment if frame.header.type == Assignment.TYPE else NoJob))
    return found


def relayed(rig, model):
    found = [decode_frame(m.payload) for m in take(rig.up, Kind.RELAYED)]
    return [frame.body(model) for frame in found if frame.header.type == model.TYPE]


def test_cut_off_from_central_it_answers_every_question_from_what_it_knows(cut_off):
    a, b = cut_off.devices
    cut_off.pass_time(DAY_S / 24, step_s=60)
    cut_off.down.sent.clear()
    cut_off.from_device(a, Kind.NEXT, a.next())
    (given,) = answers(cut_off, a)
    assert (given.task, given.round) == ROUND
    cut_off.from_device(b, Kind.NEXT, b.next([ROUND]))
    (kept,) = answers(cut_off, b)
    assert [(ref.task, ref.round) for ref in kept.keep] == [ROUND]


def test_killed_while_cut_off_it_goes_on_from_its_disk(cut_off):
    a, _ = cut_off.devices
    cut_off.offer(a, DATA)
    cut_off.restart(connect=False).connect("downlink")
    cut_off.offer(a, DATA)
    assert [r.status for r in receipts(cut_off, a)] == ["held"]
    cut_off.from_device(a, Kind.NEXT, a.next())
    assert [(one.task, one.round) for one in answers(cut_off, a)] == [ROUND]
    cut_off.connect("uplink")
    assert [m.topic.xfer for m in take(cut_off.up, Kind.MANIFEST)] == [a.xfer(DATA)]


def test_until_central_has_confirmed_what_it_holds_a_gateway_ends_no_job(rig):
    (a,) = rig.born("a")
    rig.from_device(a, Kind.NEXT, a.next([("unknown", 3), ("unknown", 4)]))
    (kept,) = answers(rig, a)
    assert [(ref.task, ref.round) for ref in kept.keep] == [("unknown", 3), ("unknown", 4)]
    rig.confirm()
    rig.from_device(a, Kind.NEXT, a.next([("unknown", 3), ("unknown", 4)]))
    assert answers(rig, a) == [NoJob()]


def test_cut_off_it_gives_models_from_what_it_keeps(rig):
    model = large()
    _, b = rig.born("a", "b")
    rig.from_central(Kind.TASK, rig.central.assignment(("a", "b"), model=model))
    rig.disconnect("uplink")
    rig.down.sent.clear()
    rig.from_device(b, Kind.GET, b.get(sha(model), (0, 1)))
    blocks = {m.topic.k: m.payload for m in take(rig.down, Kind.BLOCK)}
    assert blocks == {k: model[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES] for k in (0, 1)}


def test_cut_off_it_takes_small_and_large_updates_into_custody_within_its_quota(make_rig):
    rig = make_rig(custody_quota_bytes=MIB).connect()
    a, b, c = rig.born("a", "b", "c")
    rig.disconnect("uplink")
    rig.offer(a, DATA)
    data = large(10 * MIN_CHUNK_BYTES)
    rig.offer(b, data, inline=False)
    rig.give_chunks(b, data)
    assert [r.status for r in receipts(rig, b)] == ["held"]
    rig.pass_time(1)
    assert [r.status for r in receipts(rig, a)] == ["held"]
    other = large(10 * MIN_CHUNK_BYTES, seed=2)
    rig.offer(c, other, inline=False)
    (refused,) = receipts(rig, c)
    assert (refused.code, refused.is_final) == ("E_QUOTA", False)
    rig.connect("uplink")
    assert {m.topic.xfer for m in take(rig.up, Kind.MANIFEST)} >= {a.xfer(DATA), b.xfer(data)}
    rig.receipt(b, data)
    rig.offer(c, other, inline=False)
    rig.give_chunks(c, other)
    rig.pass_time(3)
    rig.give_chunks(c, other)
    assert [r.status for r in receipts(rig, c)] == ["held"]


def test_births_deaths_and_statuses_of_the_time_apart_reach_central_when_it_is_back(cut_off):
    a, b = cut_off.devices
    (c,) = cut_off.born("c")
    cut_off.from_device(b, Kind.STATE, b.state("offline"))
    for _ in range(30):
        cut_off.pass_time(30, step_s=10)
        for device in (a, c):
            cut_off.from_device(device, Kind.HEARTBEAT, device.heartbeat())
    cut_off.from_device(a, Kind.JOB_STATUS, a.status("training"), task=TASK)
    assert take(cut_off.up, Kind.RELAYED) == []
    cut_off.connect("uplink")
    region = body(take(cut_off.up, Kind.STATE)[-1], GatewayState)
    assert (region.devices_known, region.devices_online, region.silent) == (3, 2, ())
    told = list(cut_off.up.sent)
    assert [s.status for s in relayed(cut_off, DeviceState)] == ["online", "offline", "online"]
    cut_off.up.sent[:] = told
    assert [s.state for s in relayed(cut_off, JobStatus)] == ["training"]


def test_statuses_of_the_time_apart_survive_a_kill_and_are_told_when_central_asks(cut_off):
    a, _ = cut_off.devices
    cut_off.from_device(a, Kind.JOB_STATUS, a.status("done"), task=TASK)
    cut_off.pass_time(6)
    cut_off.restart()
    take(cut_off.up, Kind.RELAYED)
    cut_off.from_central(Kind.TASK, cut_off.central.assignment(("a", "b")))
    assert [s.state for s in relayed(cut_off, JobStatus)] == ["done"]


def test_when_it_is_back_what_has_ended_is_dropped_and_the_new_round_goes_out_at_once(cut_off):
    cut_off.pass_time(DAY_S / 24, step_s=60)
    cut_off.down.sent.clear()
    began_s = cut_off.now_s
    cut_off.connect("uplink")
    question = body(take(cut_off.up, Kind.NEXT)[-1], Next)
    assert [(ref.task, ref.round) for ref in question.holding] == [ROUND]
    frame = cut_off.central.assignment(("a", "b"), number=7)
    cut_off.from_central(Kind.TASK, frame)
    assert cut_off.parts.assignments.keys() == [(TASK, 7)]
    sent = take(cut_off.down, Kind.TASK)
    nodes = {m.topic.address.node for m in sent}
    assert nodes in ({EVERYONE_LEVEL}, {"a", "b"})
    assert {m.payload for m in sent} == {frame}
    assert cut_off.now_s - began_s < 2 * PERIOD_S


def test_an_assignment_that_ended_meanwhile_is_dropped_on_centrals_answer(cut_off):
    a, _ = cut_off.devices
    cut_off.connect("uplink")
    cut_off.confirm(keep=())
    assert cut_off.parts.assignments.keys() == []
    cut_off.down.sent.clear()
    cut_off.from_device(a, Kind.NEXT, a.next([ROUND]))
    assert answers(cut_off, a) == [NoJob()]


def test_receipts_for_what_was_held_go_down_byte_for_byte_when_it_is_back(cut_off):
    a, b = cut_off.devices
    cut_off.offer(a, DATA)
    cut_off.offer(b, DATA)
    cut_off.pass_time(DAY_S / 24, step_s=60)
    receipts(cut_off, a)
    cut_off.connect("uplink")
    cut_off.receipt(a, DATA, status="late")
    assert [r.status for r in receipts(cut_off, a)] == ["late"]
    assert [xfer for xfer, _ in cut_off.rows()] == [b.xfer(DATA)]


def test_a_device_that_was_away_when_its_receipt_came_gets_it_when_it_asks(rig):
    (a,) = rig.born("a")
    rig.offer(a, DATA)
    rig.from_device(a, Kind.STATE, a.state("offline"))
    rig.receipt(a, DATA)
    receipts(rig, a)
    rig.pass_time(DAY_S, step_s=600)
    rig.offer(a, DATA)
    assert [r.status for r in receipts(rig, a)] == ["accepted"]
    assert rig.rows() == []


def test_away_for_longer_than_receipts_are_kept_its_update_goes_to_central_once_more(rig):
    (a,) = rig.born("a")
    rig.offer(a, DATA)
    rig.receipt(a, DATA)
    rig.pass_time(RECEIPTS_KEPT_S + 600, step_s=600)
    take(rig.up, Kind.MANIFEST)
    receipts(rig, a)
    rig.offer(a, DATA)
    assert [m.topic.xfer for m in take(rig.up, Kind.MANIFEST)] == [a.xfer(DATA)]
    rig.receipt(a, DATA, status="duplicate")
    assert [r.status for r in receipts(rig, a)] == ["duplicate"]
    assert rig.rows() == []


# -- what became of updates ----------------------------------------------------------------------


def test_a_device_that_was_away_learns_what_became_of_an_old_round_through_central(rig):
    (a,) = rig.born("a")
    rig.confirm()
    rig.from_device(a, Kind.NEXT, a.next(unsettled=[(TASK, 3)]))
    assert answers(rig, a) == [NoJob()]
    rig.up.sent.clear()
    rig.pass_time(301)
    question = body(take(rig.up, Kind.NEXT)[0], Next)
    assert [(ref.task, ref.round) for ref in question.unsettled] == [(TASK, 3)]
    rig.disconnect("uplink")
    rig.connect("uplink")
    rig.confirm(settled=(Settlement(task=TASK, round=3, counted=("b", "a")),))
    rig.from_device(a, Kind.NEXT, a.next(unsettled=[(TASK, 3)]))
    (told,) = answers(rig, a)
    assert told.settled == (Settlement(task=TASK, round=3, counted=("a",)),)
    rig.up.sent.clear()
    rig.pass_time(301)
    assert body(take(rig.up, Kind.NEXT)[0], Next).unsettled == ()


def test_of_two_settlements_of_a_round_the_fuller_one_stays(rig):
    part = Settlement(task=TASK, round=3, counted=("b",))
    whole = Settlement(task=TASK, round=3, counted=("b", "moved"))
    for one in (part, whole, part):
        rig.parts.store.save_settlement(one)
    assert rig.parts.store.settlements() == [whole]


# -- cut off from the region's broker -----------------------------------------------------------


def test_a_round_that_came_while_the_region_was_out_of_reach_goes_out_when_it_is_back(rig):
    rig.born("a", "b")
    rig.disconnect("downlink")
    rig.pass_time(200)
    assert body(take(rig.up, Kind.STATE)[-1], GatewayState).silent == ("a", "b")
    frame = rig.central.assignment(("a", "b"))
    rig.from_central(Kind.TASK, frame)
    rig.pass_time(200)
    assert take(rig.down, Kind.TASK) == []
    began_s = rig.now_s
    rig.connect("downlink")
    assert {m.payload for m in take(rig.down, Kind.TASK)} == {frame}
    assert rig.now_s - began_s < 2 * PERIOD_S


def test_a_receipt_that_found_the_region_out_of_reach_is_told_on_the_next_offer(rig):
    (a,) = rig.born("a")
    rig.offer(a, DATA)
    rig.disconnect("downlink")
    rig.receipt(a, DATA)
    rig.connect("downlink")
    rig.offer(a, DATA)
    assert [r.status for r in receipts(rig, a)] == ["accepted"]
    assert rig.rows() == []


def test_a_device_in_the_middle_of_a_large_update_is_asked_for_the_rest_when_it_is_back(rig):
    (a,) = rig.born("a")
    data = large(6 * MIN_CHUNK_BYTES)
    rig.offer(a, data, inline=False)
    rig.pass_time(3)
    first = Topic(Kind.CHUNK, a.address, xfer=a.xfer(data), k=0)
    rig.arrive("downlink", first, data[:MIN_CHUNK_BYTES])
    rig.settle()
    rig.disconnect("downlink")
    rig.pass_time(120)
    rig.down.sent.clear()
    rig.connect("downlink")
    rig.give_chunks(a, data)
    assert [r.status for r in receipts(rig, a)] == ["held"]
