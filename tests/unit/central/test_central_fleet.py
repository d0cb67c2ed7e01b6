"""Which devices central asks, when it asks again, and what it answers to gateways."""

from schemas.limits import MAX_COHORT
from schemas.messages import JobRef
from tests.support.central_fixture import (
    assignments,
    begin,
    no_jobs,
)


def test_too_few_devices_wait_with_both_numbers_and_fail_after_the_time(rig):
    rig.fleet("a")
    rig.submit(task="t", min_clients=3, selection_timeout_s=60)
    status = rig.status("t")
    assert status.state == "waiting"
    assert status.reason == "1 devices fit, 3 are needed"
    rig.tick(60)
    status = rig.status("t")
    assert status.state == "failed"
    assert "gave up after 60 s" in status.reason


def test_a_waiting_task_begins_as_soon_as_the_devices_are_there(rig):
    rig.fleet("a")
    rig.submit(task="t")
    rig.device("b")
    rig.work()
    assert rig.newest().cohort == ("a", "b")


def test_a_device_that_refused_is_not_asked_again_for_that_task(rig):
    job = begin(rig, "a", "b", "c")
    rig.job("c", job, "rejected", code="memory", reason="needs 9 GiB")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.newest().cohort == ("a", "b")


def test_a_device_that_was_only_busy_is_asked_again(rig):
    job = begin(rig, "a", "b", "c")
    rig.job("c", job, "rejected", code="busy")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.newest().cohort == ("a", "b", "c")


def test_a_client_that_fails_is_replaced_by_one_that_is_free(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("c")
    rig.job("a", job, "failed", code="training", reason="diverged")
    grown = rig.newest()
    assert grown.round == 1
    assert grown.cohort == ("a", "b", "c")
    rig.update("b", job)
    assert rig.update("c", grown).status == "accepted"
    rig.work()
    assert rig.newest().round == 2


def test_with_too_few_left_the_round_waits_for_its_deadline_and_says_why(rig):
    begin(rig, "a", "b", cohort=2, deadline_s=30)
    rig.device("a", status="offline")
    status = rig.status("t")
    assert status.state == "running"
    assert status.reason == "1 of 2 clients can still report, 2 are needed"
    rig.tick(30)
    assert "extended, 1 of 2 times" in rig.status("t").reason


def test_with_too_few_left_the_round_is_abandoned_if_the_task_says_so(rig):
    job = begin(rig, "a", "b", cohort=2, on_shortfall="abandon")
    rig.update("b", job)
    rig.device("a", status="offline")
    status = rig.status("t")
    assert status.abandoned == 1
    assert "1 devices fit, 2 are needed (1 offline)" in status.reason
    assert status.history[0].reason == "1 of 2 clients can still report, 2 are needed"
    assert status.model_sha256 == job.model.sha256
    assert rig.update("a", job).status == "late"


def test_a_device_that_comes_back_reports_in_the_same_round(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("a", status="offline")
    rig.device("a", boot=2)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.newest().round == 2


def test_a_will_of_an_earlier_life_is_ignored(rig):
    rig.fleet("a", "b")
    rig.device("a", boot=5)
    rig.device("a", status="offline", boot=4)
    assert rig.store.device("a").is_online
    rig.device("a", status="offline", boot=5)
    assert not rig.store.device("a").is_online


def test_a_newer_word_of_a_device_held_for_dead_brings_it_back(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.device("a", status="offline")
    rig.job("a", job, "training", progress=0.5)
    assert rig.store.device("a").is_online


def test_silent_devices_are_not_selected_and_come_back_when_they_are_heard(rig):
    rig.fleet("a", "b", "c")
    rig.gateway(silent=("c",))
    rig.submit(task="t", cohort=3)
    rig.work()
    assert rig.newest().cohort == ("a", "b")


def test_devices_behind_a_dead_gateway_are_not_selected(rig):
    rig.fleet("a", "b")
    rig.fleet("c", "d", region="us")
    rig.gateway("us", status="offline")
    rig.submit(task="t", cohort=4, min_clients=2)
    rig.work()
    assert {a.region for a in rig.assignments()} == {"eu"}


def test_an_assignment_is_repeated_until_every_client_has_answered(rig):
    job = begin(rig, "a", "b", cohort=2)
    assert assignments(rig.tick(2))
    rig.job("a", job, "accepted")
    assert assignments(rig.tick(5))
    rig.job("b", job, "accepted")
    rig.tick(100)
    assert not assignments(rig.tick(100))


def test_a_gateway_that_is_born_gets_its_assignments_at_once(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.tick(1)
    again = assignments(rig.gateway(boot=2))
    assert [(a.task, a.round) for a in again] == [(job.task, job.round)]


def test_next_is_always_answered_and_names_what_is_still_wanted(rig):
    job = begin(rig, "a", "b", cohort=2)
    held = (JobRef(task="t", round=1), JobRef(task="gone", round=3))
    question, outgoing = rig.ask_next(holding=held)
    assert not assignments(outgoing)
    assert no_jobs(outgoing)[0][0] == question
    assert no_jobs(outgoing)[0][1].keep == (JobRef(task="t", round=1),)
    question, outgoing = rig.ask_next()
    assert [(a.task, a.round) for a in assignments(outgoing)] == [(job.task, job.round)]
    question, outgoing = rig.ask_next("us")
    assert no_jobs(outgoing)[0][1].keep == ()


def test_the_last_round_of_a_task_is_settled_in_the_answer_to_next(rig):
    job = begin(rig, rounds=1)
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    _, outgoing = rig.ask_next()
    settled = no_jobs(outgoing)[0][1].settled
    assert [(s.task, s.round, s.counted) for s in settled] == [("t", 1, ("a", "b"))]


def test_two_tasks_share_the_fleet_by_turns(rig):
    job = begin(rig, "a", "b", cohort=2, rounds=3)
    rig.submit(task="u", codec="raw-f32", cohort=2)
    assert "2 busy" in rig.status("u").reason
    turns = []
    for _ in range(4):
        rig.now_s += 1
        rig.update("a", job)
        rig.update("b", job)
        rig.work()
        job = rig.newest()
        turns.append(job.task)
    assert turns == ["t", "u", "t", "u"]


def test_the_largest_assignment_fits_a_frame(rig):
    names = [f"{number:032d}" for number in range(MAX_COHORT)]
    rig.fleet(*names)
    rig.submit(task="t" * 32, cohort=MAX_COHORT, min_clients=MAX_COHORT, codec="raw-f32", rounds=2)
    rig.work()
    job = rig.newest()
    assert len(job.cohort) == MAX_COHORT
    for name in names:
        rig.update(name, job)
    rig.work()
    assert len(rig.newest().settled[0].counted) == MAX_COHORT
