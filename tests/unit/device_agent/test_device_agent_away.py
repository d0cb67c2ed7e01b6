"""A device that was away: what it owes is delivered, and it joins the present round."""

import pytest
from device_agent_bench import (
    LARGE,
    TASK,
    Bench,
    body_of,
    model_file,
    of_kind,
    offered,
    states,
)

from device_agent.core.job import JobKey
from schemas.envelope import decode_frame
from schemas.messages import ControlNote, DeviceState, Next, NoJob, Settlement, UpdateManifest
from schemas.topics import Kind
from transport.events import Connected
from transport.sender import HELD_REPEAT_S

DAY_S = 86_400.0
YEARS_S = 10 * 365 * DAY_S


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def offers(sent):
    return [body_of(message, UpdateManifest) for message in of_kind(sent, Kind.MANIFEST)]


def asked(bench):
    """Return the id of the newest question and what it named as held."""
    frame = decode_frame(of_kind(bench.sent, Kind.NEXT)[-1].payload)
    return frame.header.id, [ref.round for ref in frame.body(Next).holding]


def test_radio_off_while_training_the_update_waits_and_is_delivered_a_day_later(bench):
    bench.assign()
    bench.lose_connection()
    bench.train()  # what it would say finds no connection
    assert bench.wait(DAY_S) == []
    assert bench.outbox.count() == 1
    sent = bench.give(Connected("main"))
    manifest, _ = offered(sent)
    assert (manifest.task, manifest.round) == (TASK, 1)
    assert states(bench.receipt(manifest, "late")) == ["done"]
    assert bench.outbox.count() == 0


def test_process_not_running_for_a_day_the_same_bytes_are_offered(bench):
    bench.assign()
    bench.lose_connection()
    bench.train()
    (wanted,) = bench.store.owed()
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    manifest, _ = offered(bench.sent)
    assert (manifest.xfer, manifest.object.sha256) == (wanted.xfer, wanted.sha256)


def test_a_job_whose_round_is_over_makes_room_for_the_present_one(bench):
    bench.assign(number=1)
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    assert bench.worker.work.key == JobKey(TASK, 1)
    assert asked(bench)[1] == [1]
    bench.assign(number=5, seed=5)
    assert bench.state(1) == "superseded"
    assert bench.worker.work.key == JobKey(TASK, 5)
    manifest, _ = offered(bench.train())
    assert manifest.round == 5


def test_an_update_of_an_old_round_and_the_job_of_the_present_one_go_side_by_side(bench):
    bench.assign(number=1)
    bench.lose_connection()
    bench.train()
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    old, _ = offered(bench.sent)
    bench.assign(number=5, seed=5)
    assert states(bench.receipt(old, "late")) == ["done"]
    new, _ = offered(bench.train())
    assert new.round == 5
    assert states(bench.receipt(new, "accepted")) == ["done"]


def test_a_job_that_was_trained_after_its_task_had_ended_is_dropped_on_the_first_answer(bench):
    bench.assign()
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    question, held = asked(bench)
    assert held == [1]
    bench.send(Kind.TASK, NoJob(), corr=question)
    assert bench.state(1) == "superseded"
    assert bench.worker.work is None


def test_an_update_held_by_the_gateway_is_offered_again_until_the_lost_receipt_comes(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "held")
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    assert offers(bench.sent) == [manifest]
    assert states(bench.receipt(manifest, "accepted")) == ["done"]


def test_a_receipt_given_while_the_device_was_away_ends_its_job_when_it_comes(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.lose_connection()
    bench.wait(DAY_S)
    bench.give(Connected("main"))
    assert states(bench.receipt(manifest, "accepted")) == ["done"]
    assert bench.receipt(manifest, "accepted") == []


def test_debts_of_many_tasks_are_all_offered_on_connect_and_end_one_by_one(bench):
    tasks = [f"t-{index}" for index in range(40)]
    for index, task in enumerate(tasks):
        bench.assign(task=task, seed=index)
        bench.train()
    bench.lose_connection()
    bench.sent.clear()
    bench.wait(DAY_S)
    sent = [*bench.give(Connected("main")), *bench.wait(1)]
    assert {one.task for one in offers(sent)} == set(tasks)
    for one in offers(sent):
        bench.receipt(one, "late" if one.task < "t-2" else "accepted")
    assert bench.outbox.count() == 0
    assert {bench.state(task=task) for task in tasks} == {"done"}


def test_a_counted_update_whose_receipt_was_lost_at_the_end_of_the_task_ends_as_done(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    assert states(bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))) == []
    assert bench.state() == "uploading"
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    question, held = asked(bench)
    assert held == [1]
    counted = Settlement(task=TASK, round=1, counted=("d1",), discarded=())
    bench.send(Kind.TASK, NoJob(settled=(counted,)), corr=question)
    assert states(bench.receipt(manifest, "duplicate")) == ["done"]
    assert bench.store.get(JobKey(TASK, 1)).settled == "counted"


def unsettled(bench):
    frame = decode_frame(of_kind(bench.sent, Kind.NEXT)[-1].payload)
    return [ref.round for ref in frame.body(Next).unsettled]


def test_it_asks_what_became_of_accepted_updates_until_it_knows(bench):
    for number in (1, 2):
        bench.assign(number=number, seed=number)
        manifest, _ = offered(bench.train())
        bench.receipt(manifest, "accepted")
    bench = bench.reborn(now_s=bench.now_s + DAY_S)
    assert unsettled(bench) == [2, 1]
    question, _ = asked(bench)
    told = Settlement(task=TASK, round=1, discarded=("d1",), reason="round abandoned")
    bench.send(Kind.TASK, NoJob(settled=(told,)), corr=question)
    bench = bench.reborn()
    assert unsettled(bench) == [2]
    assert bench.store.get(JobKey(TASK, 1)).settled == "discarded"


@pytest.mark.parametrize("status", ["late", "rejected"])
def test_an_update_that_is_refused_is_settled_by_its_receipt(bench, status):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, status, code="E_LATE")
    assert bench.store.get(JobKey(TASK, 1)).settled == "discarded"
    bench = bench.reborn()
    assert unsettled(bench) == []


# -- a clock that is wrong by years -------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-YEARS_S, YEARS_S], ids=["back", "forward"])
def test_a_clock_that_jumps_by_years_between_two_lives_stops_nothing(tmp_path, jump_s):
    bench = Bench(tmp_path, now_s=1.8e9)
    bench.assign(number=1)
    first, _ = offered(bench.train())
    bench.receipt(first, "held")
    bench.assign(LARGE, number=2)
    before = body_of(of_kind(bench.sent, Kind.STATE)[-1], DeviceState).boot
    bench = bench.reborn(now_s=bench.now_s + jump_s)
    assert body_of(of_kind(bench.sent, Kind.STATE)[-1], DeviceState).boot > before
    again = [*bench.sent, *bench.wait(HELD_REPEAT_S)]
    assert {one.xfer for one in offers(again)} == {first.xfer}
    assert of_kind(again, Kind.HEARTBEAT)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    second = offers(bench.train())[-1]
    assert second.round == 2
    assert states(bench.receipt(first, "late")) == ["done"]
    assert states(bench.receipt(second, "accepted")) == ["done"]
