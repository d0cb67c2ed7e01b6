"""Central and its gateways when clocks were set back, and when words are lost or come late."""

from schemas.envelope import decode_frame
from schemas.messages import ControlNote, DeviceState, GatewayState
from schemas.topics import Address, Kind, Topic

GATEWAY = Address.of_gateway("eu")


def begin(rig):
    rig.fleet("a", "b")
    rig.submit(task="t", codec="raw-f32", rounds=1, cohort=2)
    rig.work()
    return rig.newest()


def notes(outgoing):
    return [
        decode_frame(out.payload).body(ControlNote)
        for out in outgoing
        if out.topic.kind is Kind.CONTROL
    ]


def state_frame(rig, boot, seq, status="online"):
    writer = rig._writer("gw/eu", boot, seq)
    return writer.frame(GatewayState(status=status, boot=boot))


def test_a_round_is_committed_although_the_clock_was_set_back_since_it_was_opened(rig):
    job = begin(rig)
    rig.now_s -= 500.0
    rig.restart()
    for device in ("a", "b"):
        assert rig.update(device, job).status == "accepted"
    rig.work()
    (ended,) = rig.store.ended_rounds("t", 10)
    assert (ended.summary.outcome, ended.summary.seconds) == ("committed", 0.0)


def test_a_gateway_that_is_born_with_an_older_boot_is_told_the_newest(rig):
    rig.arrive(Topic(Kind.STATE, GATEWAY), state_frame(rig, 50, 1))
    outgoing = rig.arrive(Topic(Kind.STATE, GATEWAY), state_frame(rig, 7, 2))
    assert notes(outgoing) == [ControlNote(action="rebirth", boot=50)]
    assert rig.store.gateway("eu").boot == 50
    outgoing = rig.arrive(Topic(Kind.STATE, GATEWAY), state_frame(rig, 7, 2, "offline"))
    assert notes(outgoing) == []
    assert rig.store.gateway("eu").is_online


def test_a_gateway_whose_birth_was_lost_is_asked_for_it_when_it_asks_for_work(rig):
    assert notes(rig.ask_next()[1]) == [ControlNote(action="rebirth")]
    rig.gateway()
    assert notes(rig.ask_next()[1]) == []


def test_a_device_that_a_late_will_has_buried_is_back_when_its_birth_is_told_again(rig):
    """A Will is written before the birth that it ends, and a broker may bring it after that."""
    from_fleet = Topic(Kind.RELAYED, GATEWAY, device="a")
    rig.gateway()
    rig.device("a", boot=3)
    born = rig.store.device("a")
    will = DeviceState(status="offline", boot=3)
    rig.arrive(from_fleet, rig._writer("a", 3, 0).frame(will))
    assert not rig.store.device("a").is_online
    rig.arrive(from_fleet, rig._writer("a", 3, born.seq).frame(born.state))
    assert rig.store.device("a").is_online


def test_what_is_retained_is_told_again_every_five_minutes(rig):
    begin(rig)
    rig.tick(299.0)
    told = [out.topic.kind for out in rig.tick(2.0)]
    assert Kind.CENTRAL_STATE in told
    assert Kind.TASK_STATUS in told
