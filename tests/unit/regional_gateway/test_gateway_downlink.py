"""Assignments on their way down, questions of devices, and models."""

import numpy as np
import pytest
from gateway_rig import (
    EVERYONE,
    GATEWAY,
    START_S,
    TASK,
    body,
    large,
    sha,
    take,
)

from schemas.envelope import decode_frame
from schemas.limits import MIN_CHUNK_BYTES
from schemas.messages import Get, NoJob, Settlement
from schemas.topics import Address, Kind, Topic

ROUND = (TASK, 0)


def tasks(rig):
    """Return (node, payload) of what went down on task topics since the last call."""
    return [(m.topic.address.node, m.payload) for m in take(rig.down, Kind.TASK)]


def assign(rig, cohort, number=0, **more):
    payload = rig.central.assignment(cohort, number, **more)
    rig.from_central(Kind.TASK, payload)
    return payload


def test_an_assignment_for_half_of_the_region_goes_to_all_untouched(rig):
    rig.born("a", "b", "c", "d")
    payload = rig.central.assignment(("a", "b"))
    rig.arrive("uplink", Topic(Kind.TASK, GATEWAY), payload)
    rig.turn()  # one turn: one commit
    assert tasks(rig) == [("all", payload)]


def test_an_assignment_for_few_goes_to_each(rig):
    rig.born("a", "b", "c", "d", "e")
    payload = assign(rig, ("a", "b"))
    assert tasks(rig) == [("a", payload), ("b", payload)]


def test_silent_devices_are_asked_again_by_name_whatever_the_clock_says_of_the_deadline(rig):
    a, _, _ = rig.born("a", "b", "c")
    payload = assign(rig, ("a", "b", "c"))
    rig.from_device(a, Kind.JOB_STATUS, a.status(), task=TASK)
    assert tasks(rig) == [("all", payload)]
    rig.pass_time(20)
    again = tasks(rig)
    assert {node for node, _ in again} == {"b", "c"}
    assert {found for _, found in again} == {payload}
    assert 3 * 2 <= len(again) <= 8 * 2
    rig.now_s = START_S + 6000
    rig.pass_time(120)
    assert {node for node, _ in tasks(rig)} == {"b", "c"}


def test_a_device_that_is_offline_is_not_asked_but_may_ask(rig):
    _, b = rig.born("a", "b")
    rig.from_device(b, Kind.STATE, b.state("offline"))
    payload = assign(rig, ("a", "b"))
    assert tasks(rig) == [("a", payload)]
    rig.pass_time(10)
    assert {node for node, _ in tasks(rig)} == {"a"}
    rig.from_device(b, Kind.STATE, b.state())
    rig.from_device(b, Kind.NEXT, b.next())
    assert ("b", payload) in tasks(rig)


def test_a_repeated_assignment_tells_the_statuses_again_and_asks_nobody_twice(rig):
    a, b = rig.born("a", "b")
    assign(rig, ("a", "b"))
    statuses = [device.status() for device in (a, b)]
    for device, payload in zip((a, b), statuses, strict=True):
        rig.from_device(device, Kind.JOB_STATUS, payload, task=TASK)
    tasks(rig)
    take(rig.up, Kind.RELAYED)
    assign(rig, ("a", "b"))
    assert tasks(rig) == []
    relayed = take(rig.up, Kind.RELAYED)
    assert {(m.topic.device, m.payload) for m in relayed} == set(zip("ab", statuses, strict=True))


def test_a_device_that_joins_the_cohort_later_is_asked_at_once(rig):
    a, _ = rig.born("a", "b")
    assign(rig, ("a",))
    rig.from_device(a, Kind.JOB_STATUS, a.status(), task=TASK)
    tasks(rig)
    payload = assign(rig, ("a", "b"))
    assert tasks(rig) == [("b", payload)]


def test_a_newer_round_replaces_the_older_and_an_older_one_is_ignored(rig):
    (a,) = rig.born("a")
    assign(rig, ("a",), 0)
    newer = assign(rig, ("a",), 1)
    assign(rig, ("a",), 0)
    assert rig.parts.assignments.keys() == [(TASK, 1)]
    assert tasks(rig)[-1] == ("a", newer)
    rig.from_device(a, Kind.NEXT, a.next())
    assert tasks(rig) == [("a", newer)]


def test_an_assignment_of_another_region_is_refused(rig):
    rig.from_central(Kind.TASK, rig.central.assignment(("a",), region="us"))
    assert rig.loop.counts["refused:E_SCHEMA"] == 1
    assert rig.parts.assignments.keys() == []


def test_a_crash_after_the_commit_still_asks_everybody_without_a_status(rig):
    a, _ = rig.born("a", "b")
    payload = assign(rig, ("a", "b"))
    rig.from_device(a, Kind.JOB_STATUS, a.status(), task=TASK)
    rig.pass_time(6)  # a status alone is written after a few seconds
    rig.restart()
    assert tasks(rig) == [("b", payload)]


def test_a_status_that_a_crash_took_is_asked_for_again(rig):
    a, _ = rig.born("a", "b")
    payload = assign(rig, ("a", "b"))
    rig.from_device(a, Kind.JOB_STATUS, a.status(), task=TASK)
    rig.restart()
    assert tasks(rig) == [("all", payload)]


def test_a_status_costs_no_write_and_is_relayed_untouched_on_change_only(rig):
    (a,) = rig.born("a")
    assign(rig, ("a",))
    take(rig.up, Kind.RELAYED)
    rig.settle()
    before = rig.connection.total_changes
    old, new = a.status(), a.status("training", progress=0.5)
    rig.from_device(a, Kind.JOB_STATUS, new, task=TASK)
    rig.from_device(a, Kind.JOB_STATUS, new, task=TASK)
    rig.from_device(a, Kind.JOB_STATUS, old, task=TASK)
    assert rig.connection.total_changes == before
    (relayed,) = take(rig.up, Kind.RELAYED)
    assert relayed.payload == new
    assert relayed.topic == Topic(Kind.RELAYED, GATEWAY, device="a")


def test_a_status_of_a_task_that_the_topic_does_not_name_is_refused(rig):
    (a,) = rig.born("a")
    rig.from_device(a, Kind.JOB_STATUS, a.status(), task="other")
    assert rig.loop.counts["refused:E_SCHEMA"] == 1


def test_without_an_uplink_statuses_wait_and_the_newest_goes_up(rig):
    (a,) = rig.born("a")
    assign(rig, ("a",))
    rig.disconnect("uplink")
    for state in ("accepted", "training", "done"):
        payload = a.status(state)
        rig.from_device(a, Kind.JOB_STATUS, payload, task=TASK)
    rig.pass_time(100)
    rig.up.sent.clear()
    rig.connect("uplink")
    relayed = [m.payload for m in take(rig.up, Kind.RELAYED)]
    assert payload in relayed
    assert len(relayed) == 2  # its state, its newest status


# Questions.


def test_a_question_is_always_answered(rig):
    (a,) = rig.born("a")
    rig.confirm()
    question = a.next([("gone", 4)])
    rig.from_device(a, Kind.NEXT, question)
    (message,) = take(rig.down, Kind.TASK)
    assert decode_frame(message.payload).header.corr == decode_frame(question).header.id
    assert body(message, NoJob) == NoJob()


def test_a_question_is_answered_by_the_assignment_only_to_who_lacks_it(rig):
    a, b = rig.born("a", "b")
    payload = assign(rig, ("a",))
    tasks(rig)
    rig.from_device(a, Kind.NEXT, a.next())
    assert tasks(rig) == [("a", payload)]
    rig.from_device(a, Kind.NEXT, a.next([ROUND]))
    (message,) = take(rig.down, Kind.TASK)
    assert [(k.task, k.round) for k in body(message, NoJob).keep] == [ROUND]
    rig.from_device(b, Kind.NEXT, b.next())
    (message,) = take(rig.down, Kind.TASK)
    assert message.topic.address == Address("eu", "b")
    assert body(message, NoJob) == NoJob()


@pytest.mark.parametrize("state", ["done", "failed", "rejected"])
def test_who_has_ended_a_round_is_not_given_it_again(rig, state):
    (a,) = rig.born("a")
    assign(rig, ("a",))
    rig.from_device(a, Kind.JOB_STATUS, a.status(state), task=TASK)
    tasks(rig)
    rig.from_device(a, Kind.NEXT, a.next())
    (message,) = take(rig.down, Kind.TASK)
    assert body(message, NoJob) == NoJob()


def test_settlements_reach_devices_with_the_answer_to_their_question(rig):
    (a,) = rig.born("a")
    settled = Settlement(task=TASK, round=0, counted=("a", "b"))
    assign(rig, ("b",), 1, settled=(settled,))
    tasks(rig)
    rig.restart()
    tasks(rig)
    rig.from_device(a, Kind.NEXT, a.next())
    (message,) = take(rig.down, Kind.TASK)
    assert body(message, NoJob).settled == (Settlement(task=TASK, round=0, counted=("a",)),)


def test_a_cancelled_task_is_dropped_and_its_devices_are_told(rig):
    rig.born("a", "b")
    assign(rig, ("a", "b"))
    note = rig.central.note("cancel", task=TASK)
    rig.from_central(Kind.CONTROL, note)
    told = take(rig.down, Kind.CONTROL)
    assert {(m.topic.address.node, m.payload) for m in told} == {("a", note), ("b", note)}
    assert rig.parts.assignments.keys() == []
    tasks(rig)
    rig.pass_time(60)
    assert tasks(rig) == []


def test_assignments_go_a_week_after_they_came(rig):
    rig.born("a")
    assign(rig, ("a",))
    rig.now_s = START_S + 7 * 86_400 - 600
    rig.settle()
    assert rig.parts.assignments.keys() == [ROUND]
    rig.now_s += 1000
    rig.settle()
    assert rig.parts.assignments.keys() == []


# Models.


def blocks(rig):
    """Return (node, k, payload) of what went down on block topics since the last call."""
    found = take(rig.down, Kind.BLOCK)
    return [(m.topic.address.node, m.topic.k, m.payload) for m in found]


def whole(found):
    return b"".join(payload for _, _, payload in sorted(found, key=lambda item: item[1]))


MODEL = large(40 * MIN_CHUNK_BYTES - 5)


def test_a_large_model_is_fetched_once_and_multicast_once(rig):
    devices = rig.born(*(f"d-{i}" for i in range(8)))
    assign(rig, [d.name for d in devices], model=MODEL)
    assert rig.give_blocks(MODEL) == 40
    rig.settle()
    found = blocks(rig)
    assert {node for node, _, _ in found} == {"all"}
    assert len(found) == 40
    assert whole(found) == MODEL
    rig.pass_time(30)
    assert blocks(rig) == []
    assert take(rig.up, Kind.GET) == []
    assign(rig, [d.name for d in devices], 1, model=MODEL)
    rig.pass_time(3)
    assert take(rig.up, Kind.GET) == []


def test_holes_are_repaired_by_get_and_only_for_who_asks(rig):
    a, b, _ = rig.born("a", "b", "c")
    assign(rig, ("a", "b"), model=MODEL)
    rig.give_blocks(MODEL)
    rig.settle()
    blocks(rig)
    rig.from_device(b, Kind.GET, b.get(sha(MODEL), (39, 3)))
    found = blocks(rig)
    assert {(node, k) for node, k, _ in found} == {("b", 39), ("b", 3)}
    assert {k: payload for _, k, payload in found}[39] == MODEL[39 * MIN_CHUNK_BYTES :]
    rig.from_device(a, Kind.GET, a.get(sha(b"unknown"), (0,)))
    assert blocks(rig) == []


def test_a_model_for_one_device_is_not_multicast(rig):
    a, _ = rig.born("a", "b")
    assign(rig, ("a",), model=MODEL)
    rig.from_device(a, Kind.GET, a.get(sha(MODEL), (0, 1)))  # before the gateway has it
    assert blocks(rig) == []
    rig.give_blocks(MODEL)
    assert {(node, k) for node, k, _ in blocks(rig)} == {("a", 0), ("a", 1)}


def test_an_inline_model_can_be_asked_for_too(rig):
    (a,) = rig.born("a")
    model = large(MIN_CHUNK_BYTES + 3)
    assign(rig, ("a",), model=model)
    rig.from_device(a, Kind.GET, a.get(sha(model), (0, 1, 7)))
    assert whole(blocks(rig)) == model
    assert take(rig.up, Kind.GET) == []


def test_a_crash_in_the_middle_of_a_model_asks_only_for_the_rest(rig):
    rig.born("a", "b")
    assign(rig, ("a", "b"), model=MODEL)
    (question,) = take(rig.up, Kind.GET)
    first = body(question, Get).want
    for k in first:
        block = MODEL[k * MIN_CHUNK_BYTES : (k + 1) * MIN_CHUNK_BYTES]
        rig.arrive("uplink", Topic(Kind.BLOCK, GATEWAY, sha16=sha(MODEL)[:16], k=k), block)
    rig.settle()
    rig.restart()
    assert rig.give_blocks(MODEL) == 40 - len(first)
    rig.settle()
    assert whole(blocks(rig)) == MODEL


def test_a_wrong_block_is_refused_and_asked_for_again(rig):
    rig.born("a", "b")
    assign(rig, ("a", "b"), model=MODEL)
    sha16 = sha(MODEL)[:16]
    rig.from_central(Kind.BLOCK, b"not it", sha16=sha16, k=0)
    assert rig.loop.counts["refused:E_PAYLOAD"] == 1
    rig.from_central(Kind.BLOCK, b"nobody asked", sha16="0" * 16, k=0)
    rig.give_blocks(MODEL)
    rig.pass_time(3)
    rig.give_blocks(MODEL)
    rig.settle()
    assert whole(blocks(rig)) == MODEL


def test_a_cancelled_task_stops_its_models_pull(rig):
    rig.born("a", "b")
    assign(rig, ("a", "b"), model=MODEL)
    rig.from_central(Kind.CONTROL, rig.central.note("cancel", task=TASK))
    take(rig.up, Kind.GET)
    rig.pass_time(100)
    assert take(rig.up, Kind.GET) == []


def test_the_cache_keeps_what_is_in_use_and_the_newest_of_the_rest(make_rig):
    rig = make_rig(cache_bytes=2 * 1024 * 1024).connect()
    rig.born("a")
    models = [large(1024 * 1024, seed=i) for i in range(4)]
    for number, model in enumerate(models):
        assign(rig, ("a",), number, model=model)
        rig.give_blocks(model)
    folder = rig.settings.state_dir / "models" / "objects"
    kept = {path.name for path in folder.iterdir()}
    assert kept == {sha(models[2]), sha(models[3])}


def test_many_devices_that_ask_for_one_missing_model_start_one_pull(rig):
    devices = rig.born(*(f"d-{i}" for i in range(6)))
    rng = np.random.default_rng(3)
    assign(rig, [d.name for d in devices], model=MODEL)
    for device in devices:
        want = tuple(int(k) for k in rng.integers(0, 40, 4))
        rig.from_device(device, Kind.GET, device.get(sha(MODEL), want))
    assert rig.give_blocks(MODEL) == 40
    rig.settle()
    found = blocks(rig)
    assert [node for node, _, _ in found] == [EVERYONE.node] * 40
