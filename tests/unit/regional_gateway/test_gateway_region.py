"""Births, deaths and silence of devices, and the gateway's own standing with central."""

from gateway_rig import GATEWAY, START_S, TASK, Device, body, take

from schemas.envelope import decode_frame
from schemas.messages import ControlNote, DeviceState, GatewayState, JobRef, Next, Settlement
from schemas.topics import Kind, Topic


def states(rig):
    return [body(m, GatewayState) for m in take(rig.up, Kind.STATE)]


def relayed(rig):
    return [(m.topic.device, m.payload) for m in take(rig.up, Kind.RELAYED)]


def notes(rig):
    found = take(rig.down, Kind.CONTROL)
    return [(m.topic.address.node, body(m, ControlNote)) for m in found]


def test_a_birth_is_relayed_untouched_and_only_on_change(rig):
    a = Device("a")
    payload = a.state()
    rig.from_device(a, Kind.STATE, payload)
    rig.from_device(a, Kind.STATE, payload)
    assert relayed(rig) == [("a", payload)]
    death = a.state("offline")
    rig.from_device(a, Kind.STATE, death)
    assert relayed(rig) == [("a", death)]


def test_an_older_boot_is_refused_with_the_newest_known_and_its_death_is_ignored(rig):
    a = Device("a", boot=10)
    rig.from_device(a, Kind.STATE, a.state())
    relayed(rig)
    old = Device("a", boot=7)
    rig.from_device(old, Kind.STATE, old.state("offline"))
    assert notes(rig) == []
    rig.from_device(old, Kind.STATE, old.state())
    assert notes(rig) == [("a", ControlNote(action="rebirth", boot=10))]
    assert relayed(rig) == []
    reborn = Device("a", boot=11)
    rig.from_device(reborn, Kind.STATE, reborn.state())
    assert len(relayed(rig)) == 1


def test_a_state_that_names_another_sender_is_dropped(rig):
    a, b = Device("a"), Device("b")
    rig.from_device(a, Kind.STATE, b.state())
    assert rig.loop.counts["refused:E_IDENTITY"] == 1
    assert relayed(rig) == []


def test_a_heartbeat_of_an_unknown_device_asks_for_its_birth_now_and_then(rig):
    a = Device("a")
    for _ in range(3):
        rig.from_device(a, Kind.HEARTBEAT, a.heartbeat())
    assert notes(rig) == [("a", ControlNote(action="rebirth"))]
    rig.now_s += 31
    rig.from_device(a, Kind.HEARTBEAT, a.heartbeat())
    assert len(notes(rig)) == 1
    rig.from_device(a, Kind.STATE, a.state())
    rig.now_s += 31
    rig.from_device(a, Kind.HEARTBEAT, a.heartbeat())
    assert notes(rig) == []


def test_a_device_that_a_late_will_buried_is_asked_for_its_birth(rig):
    (a,) = rig.born("a")
    rig.from_device(a, Kind.STATE, a.state("offline"))
    rig.from_device(a, Kind.HEARTBEAT, a.heartbeat())
    assert notes(rig) == [("a", ControlNote(action="rebirth"))]


def test_a_silent_device_is_told_to_central_and_so_is_its_return(rig):
    a, b = rig.born("a", "b")
    rig.pass_time(2)
    states(rig)
    for _ in range(3):
        rig.pass_time(40, step_s=10)
        rig.from_device(b, Kind.HEARTBEAT, b.heartbeat())
    (state,) = states(rig)
    assert (state.silent, state.devices_online, state.devices_known) == (("a",), 1, 2)
    rig.from_device(a, Kind.HEARTBEAT, a.heartbeat())
    rig.pass_time(2)
    assert [s.silent for s in states(rig)] == [()]


def test_a_restarted_gateway_does_not_call_everybody_silent(rig):
    rig.born("a")
    rig.now_s += 10_000
    rig.restart()
    rig.pass_time(90, step_s=10)
    assert all(s.silent == () for s in states(rig))
    rig.pass_time(20, step_s=10)
    assert states(rig)[-1].silent == ("a",)


def test_many_births_make_one_state_of_the_region(rig):
    states(rig)
    rig.born(*(f"d-{i}" for i in range(20)))
    rig.pass_time(3)
    assert [s.devices_online for s in states(rig)] == [20]


def test_a_new_uplink_connection_announces_the_whole_region(rig):
    a, b = rig.born("a", "b")
    rig.from_central(Kind.TASK, rig.central.assignment(("a",)))
    rig.disconnect("uplink")
    rig.up.sent.clear()
    rig.connect("uplink")
    (state,) = states(rig)
    assert (state.status, state.boot) == ("online", rig.frames.boot)
    assert {device for device, _ in relayed(rig)} == {a.name, b.name}
    (question,) = take(rig.up, Kind.NEXT)
    assert body(question, Next).holding == (JobRef(task=TASK, round=0),)


def test_a_newly_born_central_hears_everything_once(rig):
    rig.born("a")
    rig.pass_time(2)
    rig.up.sent.clear()
    topic = Topic(Kind.CENTRAL_STATE)
    for payload in (rig.central.state(boot=9), rig.central.state(boot=9)):
        rig.arrive("uplink", topic, payload)
        rig.settle()
    assert len(states(rig)) == 1
    assert len(relayed(rig)) == 1
    rig.arrive("uplink", topic, rig.central.state("offline", boot=9))
    rig.arrive("uplink", topic, b"{}")
    rig.settle()
    assert states(rig) == []
    assert rig.loop.counts["refused:E_SCHEMA"] == 1


def test_central_that_connects_again_hears_everything_once_more(rig):
    """Its broker may have lost its session, and with it what was told in between."""
    rig.born("a")
    topic = Topic(Kind.CENTRAL_STATE)
    rig.arrive("uplink", topic, rig.central.state(boot=9, connection=1))
    rig.settle()
    rig.up.sent.clear()
    again = rig.central.state(boot=9, connection=2)
    for payload in (again, again, rig.central.state(boot=9, connection=1)):
        rig.arrive("uplink", topic, payload)
        rig.settle()
    assert len(states(rig)) == 1
    assert len(relayed(rig)) == 1


def test_centrals_retained_state_announces_nothing_twice(rig):
    topic = Topic(Kind.CENTRAL_STATE)
    rig.up.sent.clear()
    rig.arrive("uplink", topic, rig.central.state(boot=9), retained=True)
    rig.settle()
    assert states(rig) == []


def test_the_question_is_repeated_until_answered_and_then_every_five_minutes(rig):
    (first,) = take(rig.up, Kind.NEXT)
    rig.pass_time(10)
    again = take(rig.up, Kind.NEXT)
    assert len(again) >= 3
    assert {m.payload for m in again} == {first.payload}
    corr = decode_frame(first.payload).header.id
    rig.from_central(Kind.TASK, rig.central.none(corr))
    rig.pass_time(299, step_s=10)
    assert take(rig.up, Kind.NEXT) == []
    rig.pass_time(5)
    assert len(take(rig.up, Kind.NEXT)) >= 1


def test_central_ends_what_it_does_not_keep_but_nothing_that_came_later(rig):
    rig.born("a")
    rig.from_central(Kind.TASK, rig.central.assignment(("a",), task="old"))
    rig.from_central(Kind.TASK, rig.central.assignment(("a",), task="kept"))
    rig.up.sent.clear()
    rig.disconnect("uplink")
    rig.connect("uplink")
    (question,) = take(rig.up, Kind.NEXT)
    rig.from_central(Kind.TASK, rig.central.assignment(("a",), task="new"))
    corr = decode_frame(question.payload).header.id
    rig.from_central(Kind.TASK, rig.central.none("f" * 32))
    assert len(rig.parts.assignments.keys()) == 3
    settled = Settlement(task="old", round=0, counted=("a",))
    rig.from_central(Kind.TASK, rig.central.none(corr, [("kept", 0)], (settled,)))
    assert rig.parts.assignments.keys() == [("kept", 0), ("new", 0)]
    assert rig.parts.store.settlements() == [settled]


def test_everything_is_told_again_every_five_minutes(rig):
    (a,) = rig.born("a")
    rig.from_central(Kind.TASK, rig.central.assignment(("a",)))
    rig.from_device(a, Kind.JOB_STATUS, a.status(), task=TASK)
    corr = decode_frame(take(rig.up, Kind.NEXT)[0].payload).header.id
    rig.from_central(Kind.TASK, rig.central.none(corr, [(TASK, 0)]))
    relayed(rig)
    for _ in range(4):
        rig.pass_time(80, step_s=10)
        rig.from_device(a, Kind.HEARTBEAT, a.heartbeat())
    assert len(relayed(rig)) == 2


def test_central_may_ask_for_the_birth_and_a_newer_boot_is_adopted(rig):
    rig.born("a")
    wills = []
    rig.parts.on_boot.append(lambda: wills.append(rig.frames.boot))
    relayed(rig)
    states(rig)
    newest = rig.frames.boot + 5
    rig.from_central(Kind.CONTROL, rig.central.note("rebirth", boot=newest))
    assert rig.frames.boot == newest + 1
    assert wills == [newest + 1]
    assert [s.boot for s in states(rig)] == [newest + 1]
    assert len(relayed(rig)) == 1
    rig.from_central(Kind.CONTROL, rig.central.note("rebirth", boot=3))
    assert rig.frames.boot == newest + 1
    rig.restart()
    assert rig.frames.boot > newest + 1


def test_a_relay_that_the_session_refused_is_repeated(rig):
    rig.up.acknowledges = False
    (a,) = rig.born("a")
    assert len(relayed(rig)) == 1
    rig.pass_time(6)
    rig.up.acknowledges = True
    rig.pass_time(6)
    relayed(rig)
    rig.pass_time(20)
    assert relayed(rig) == []
    assert rig.parts.store.device_frame(a.name) is not None


def test_a_crowd_of_relays_goes_up_in_windows(rig):
    rig.up.acknowledges = False
    rig.born(*(f"d-{i}" for i in range(100)))
    assert len(relayed(rig)) == 64
    rig.up.acknowledges = True
    rig.pass_time(6)
    assert {device for device, _ in relayed(rig)} == {f"d-{i}" for i in range(100)}


def test_a_device_that_is_gone_for_a_month_is_forgotten(rig):
    (a, b) = rig.born("a", "b")
    rig.from_device(a, Kind.STATE, a.state("offline"))
    rig.now_s = START_S + 31 * 86_400
    rig.settle()
    assert rig.parts.store.device_ids() == [b.name]


def test_the_farewell_names_the_boot_of_this_life(rig):
    message = rig.parts.devices.farewell("stopped")
    assert message.topic == Topic(Kind.STATE, GATEWAY)
    state = body(message, GatewayState)
    assert (state.status, state.boot, state.why) == ("offline", rig.frames.boot, "stopped")


def test_a_word_with_a_tail_is_refused(rig):
    a = Device("a")
    rig.from_device(a, Kind.STATE, a.frames.frame(DeviceState(status="online", boot=1), tail=b"x"))
    assert rig.loop.counts["refused:E_FORMAT"] == 1
    assert relayed(rig) == []


def test_what_waits_for_central_is_bounded_and_the_newest_stays(rig, monkeypatch):
    monkeypatch.setattr("regional_gateway.service.relay._MAX_BYTES", 3000)
    rig.disconnect("uplink")
    a = Device("a")
    for number in range(50):
        payload = a.status("accepted", number)
        rig.from_device(a, Kind.JOB_STATUS, payload, task=TASK)
    rig.up.sent.clear()
    rig.connect("uplink")
    found = relayed(rig)
    assert 1 < len(found) < 50
    assert found[-1] == ("a", payload)
