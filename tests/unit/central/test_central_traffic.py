"""Which bytes of a device belong to which of its updates."""

from hypothesis import given
from hypothesis import strategies as st

from central.core.traffic import Counted, Share, attribute
from central.service.accounting import cost_of
from schemas.envelope import decode_frame
from schemas.messages import UpdateManifest
from tests.support.central_fixture import begin


def test_an_update_takes_what_is_new_since_the_last_one_and_its_own_packets():
    share, counted = attribute(None, Counted(7, 900, 5000), 100)
    assert share == Share(1000, 5000)
    assert counted == Counted(7, 1000, 5000)
    share, counted = attribute(counted, Counted(7, 1300, 9000), 100)
    assert share == Share(400, 4000)
    assert counted == Counted(7, 1400, 9000)


def test_a_restarted_device_counts_from_zero():
    share, counted = attribute(Counted(7, 50_000, 60_000), Counted(8, 300, 400), 100)
    assert (share, counted) == (Share(400, 400), Counted(8, 400, 400))


def test_an_update_of_an_older_life_adds_only_itself():
    known = Counted(8, 300, 400)
    assert attribute(known, Counted(7, 50_000, 60_000), 100) == (Share(100, 0), known)


def test_two_updates_made_while_away_are_counted_once_each():
    share, counted = attribute(None, Counted(1, 1000, 2000), 100)
    share, counted = attribute(counted, Counted(1, 1000, 2000), 300)
    assert share == Share(300, 0)
    share, _ = attribute(counted, Counted(1, 1450, 2100), 100)
    assert share == Share(150, 100)


COUNTERS = st.integers(0, 1 << 40)


@given(
    st.lists(
        st.tuples(st.builds(Counted, st.integers(1, 3), COUNTERS, COUNTERS), st.integers(0, 9999)),
        max_size=20,
    )
)
def test_no_share_is_negative_and_no_life_is_counted_beyond_what_it_told(told):
    known, taken = None, {}
    for one, own in told:
        share, known = attribute(known, one, own)
        assert share.uplink_bytes >= own
        assert share.downlink_bytes >= 0
        lives = taken.setdefault(one.boot, [0, 0, 0])
        lives[0] += share.uplink_bytes
        lives[1] += share.downlink_bytes
        lives[2] += own
    for boot, (up, down, own) in taken.items():
        assert up <= max(one.sent_bytes for one, _ in told if one.boot == boot) + own
        assert down <= max(one.received_bytes for one, _ in told if one.boot == boot)


def test_a_round_and_its_task_tell_payload_and_wire_bytes(rig):
    assignment = begin(rig, "a", "b")
    for device in ("a", "b"):
        receipt = rig.update(device, assignment, wire_bytes=(2000, 30_000))
        assert receipt.status == "accepted"
    rig.work()
    own = _own_bytes(rig, assignment)
    status = rig.status("t")
    (summary,) = status.history
    assert summary.uplink_wire_bytes == 2 * (2000 + own)
    assert summary.downlink_wire_bytes == 60_000
    assert status.uplink_wire_bytes == summary.uplink_wire_bytes
    assert status.downlink_wire_bytes == 60_000
    raw = 2 * 4 * status.parameters
    assert status.uplink_ratio == raw / status.uplink_bytes
    assert status.uplink_wire_ratio == raw / status.uplink_wire_bytes

    second = rig.newest()
    rig.update("a", second, wire_bytes=(2000 + own + 50, 31_000))
    rig.update("b", second)  # an agent that does not count
    rig.work()
    last = rig.status("t").history[-1]
    assert last.uplink_wire_bytes == own + 50 + _own_bytes(rig, second, wire_bytes=None)
    assert last.downlink_wire_bytes == 1000


def _own_bytes(rig, assignment, wire_bytes=(2000, 30_000)):
    _, data, _ = rig.update_frame("a", assignment, wire_bytes=wire_bytes)
    frame = decode_frame(data)
    return cost_of("eu", frame.body(UpdateManifest), frame).own_bytes
