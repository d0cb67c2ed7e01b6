"""Devices that come back after rounds, tasks and regions have changed: what central answers."""

import pytest

from schemas.messages import JobRef
from schemas.topics import Kind
from tests.support.central_fixture import CentralRig, assignments, no_jobs

DAY_S = 86_400.0


@pytest.fixture
def rig(tmp_path):
    made = CentralRig(tmp_path, keep_task_s=30 * DAY_S)
    yield made
    made.connection.close()


def begin(rig, *devices, **task):
    """Submit a task and return the first assignment."""
    rig.fleet(*(devices or ("a", "b", "c")))
    rig.submit(task="t", codec="raw-f32", **{"rounds": 9, "cohort": len(devices) or 3, **task})
    rig.work()
    return rig.newest()


def commit_round(rig, *devices):
    """Let some devices end the newest round."""
    job = rig.newest()
    for device in devices:
        assert rig.update(device, job).status == "accepted"
    rig.work()
    return job


def test_a_device_away_for_a_day_is_late_with_its_round_and_joins_the_present_one(rig):
    first = begin(rig)
    rig.device("c", status="offline")
    for _ in range(3):
        commit_round(rig, "a", "b")
    rig.now_s += DAY_S
    before = rig.store.task("t")
    rig.device("c", boot=2)
    assert rig.update("c", first, 7.0).status == "late"
    assert rig.store.task("t").model_sha256 == before.model_sha256
    assert rig.status("t").late == 1
    assert [row.late for row in rig.status("t").history] == [1, 0, 0]
    commit_round(rig, "a", "b")
    joined = rig.newest()
    assert "c" in joined.cohort
    assert rig.update("c", joined).status == "accepted"


def test_a_round_that_extends_its_deadline_waits_for_a_device_that_is_away(rig):
    job = begin(rig, "a", "b", deadline_s=600)
    rig.update("a", job)
    rig.device("b", status="offline")
    rig.tick(700)
    assert "extended, 1 of 2 times" in rig.status("t").reason
    rig.tick(500)
    rig.device("b", boot=2)
    assert rig.update("b", job).status == "accepted"
    rig.work()
    assert rig.status("t").committed == 1
    assert rig.status("t").late == 0


def test_a_device_that_comes_back_takes_the_place_of_one_that_a_short_round_has_lost(rig):
    job = begin(rig, "a", "b", cohort=2)
    rig.update("a", job)
    rig.device("b", status="offline")
    assert rig.newest().cohort == ("a", "b")
    rig.device("c")
    joined = rig.newest()
    assert (joined.round, joined.cohort) == (1, ("a", "b", "c"))
    assert rig.update("c", joined).status == "accepted"
    rig.work()
    assert rig.status("t").committed == 1


def test_after_the_end_of_the_task_its_updates_are_late_and_counted_in_its_status(rig):
    job = begin(rig, rounds=1)
    commit_round(rig, "a", "b")
    assert rig.status("t").state == "completed"
    rig.now_s += DAY_S
    assert rig.update("c", job).status == "late"
    assert rig.status("t").late == 1


def test_after_a_cancelled_task_its_updates_are_late_and_have_no_effect(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.control("t", "cancel")
    assert rig.update("b", job).status == "late"
    assert (rig.status("t").committed, rig.status("t").abandoned) == (0, 1)


def test_what_was_purged_is_late_as_often_as_it_is_offered_and_leaves_no_row(rig):
    job = begin(rig, rounds=1)
    commit_round(rig, "a", "b")
    rig.tick(31 * DAY_S)
    assert rig.store.task("t") is None
    for device in ("c", "a", "c"):
        receipt = rig.update(device, job)
        assert (receipt.status, receipt.code) == ("late", "E_LATE")
        assert receipt.is_final
        assert "'t' is not kept here" in receipt.detail
    assert rig.connection.execute("SELECT count(*) FROM refusals").fetchone() == (0,)


def test_an_update_for_a_task_that_never_was_is_late_and_leaves_no_row(rig):
    job = begin(rig)
    assert rig.update("a", job, task="other").status == "late"
    assert rig.connection.execute("SELECT count(*) FROM refusals").fetchone() == (0,)


def test_a_late_update_does_not_bring_back_the_status_of_a_task_that_was_cleared(rig):
    job = begin(rig, rounds=1)
    commit_round(rig, "a", "b")
    rig.now_s += 1.0
    for index in range(101):
        rig.submit(task=f"n{index}", regions=["nowhere"])
        rig.control(f"n{index}", "cancel")
    assert rig.status("t") is None
    rig.update("c", job)
    assert rig.store.task("t").totals.late == 1
    assert rig.status("t") is None


def test_an_accepted_update_whose_receipt_was_lost_for_a_day_is_a_duplicate(rig):
    job = begin(rig)
    rig.update("a", job)
    commit_round(rig, "b")
    rig.now_s += DAY_S
    assert rig.update("a", job).status == "duplicate"
    assert rig.status("t").updates_accepted == 2
    assert rig.status("t").late == 0


def test_a_device_with_debts_in_many_tasks_settles_each_by_its_own_round(rig):
    first = begin(rig, "a", "b", "c")
    commit_round(rig, "a", "b")
    rig.control("t", "pause")
    rig.submit(task="u", codec="raw-f32", rounds=1, cohort=3)
    commit_round(rig, "a", "b")  # what is left of t
    rig.work()
    other = rig.newest()
    assert other.task == "u"
    assert rig.update("c", first).status == "late"
    assert rig.update("c", other).status == "accepted"


# -- a device that moved to another region while it owed an update -----------------------------


def move(rig, device, region="us"):
    rig.gateway(region)
    rig.device(device, region, boot=2)


def test_an_update_of_a_device_that_moved_is_counted_in_its_new_region(rig):
    job = begin(rig)
    move(rig, "a")
    assert rig.update("a", job, region="us").status == "accepted"
    rig.update("b", job)
    rig.work()
    assert rig.status("t").committed == 1
    assert rig.store.contribution("t", 1, "a").region == "us"


def test_a_copy_in_the_former_region_cannot_spoil_the_update(rig):
    job = begin(rig)
    move(rig, "a")
    early = rig.update("a", job, region="eu")
    assert (early.status, early.code, early.is_final) == ("rejected", "E_UNKNOWN_DEVICE", False)
    assert rig.update("a", job, region="us").status == "accepted"
    assert rig.update("a", job, region="eu").status == "duplicate"
    assert rig.update("a", job, region="us").status == "duplicate"
    assert rig.status("t").reported == 1


def test_a_copy_that_was_counted_before_the_move_is_a_duplicate_afterwards(rig):
    job = begin(rig)
    assert rig.update("a", job, region="eu").status == "accepted"
    move(rig, "a")
    assert rig.update("a", job, region="us").status == "duplicate"
    assert rig.status("t").updates_accepted == 1


def test_both_copies_of_an_update_that_is_too_late_are_late_and_counted_as_one(rig):
    job = begin(rig)
    commit_round(rig, "b", "c")
    move(rig, "a")
    assert rig.update("a", job, region="eu").status == "late"
    assert rig.update("a", job, region="us").status == "late"
    assert rig.status("t").late == 1


def test_an_update_that_arrives_before_the_word_of_the_move_waits_for_it(rig):
    job = begin(rig)
    rig.gateway("us")
    early = rig.update("a", job, region="us")
    assert not early.is_final
    rig.device("a", "us", boot=2)
    assert rig.update("a", job, region="us").status == "accepted"


def test_a_former_region_that_calls_a_moved_device_silent_changes_nothing(rig):
    job = begin(rig, "a", "b", cohort=2, on_shortfall="abandon")
    move(rig, "a")
    rig.gateway("eu", silent=("a",))
    assert rig.status("t").abandoned == 0
    assert rig.update("a", job, region="us").status == "accepted"


def test_the_word_of_a_former_life_in_the_former_region_does_not_move_a_device_back(rig):
    begin(rig)
    move(rig, "a")
    rig.device("a", "eu", status="offline", boot=1)
    rig.device("a", "eu", boot=1)
    assert rig.store.device("a").region == "us"
    assert rig.store.device("a").is_online


# -- a gateway that was cut off -----------------------------------------------------------------


def test_a_gateway_that_is_back_hears_which_of_its_assignments_have_ended(rig):
    first = begin(rig)
    commit_round(rig, "a", "b")
    rig.gateway(status="offline")
    held = (JobRef(task="t", round=first.round),)
    rig.gateway()
    _, outgoing = rig.ask_next(holding=held)
    assert [job.round for job in assignments(outgoing)] == [2]
    ((_, answer),) = no_jobs(outgoing)
    assert answer.keep == ()


def test_a_gateway_that_is_back_gets_the_new_round_in_the_same_breath(rig):
    begin(rig)
    commit_round(rig, "a", "b")
    rig.gateway(status="offline")
    outgoing = rig.gateway()
    assert [job.round for job in assignments(outgoing)] == [2]
    assert [out.topic.kind for out in outgoing if out.topic.kind is Kind.TASK] == [Kind.TASK]


# -- what became of updates ----------------------------------------------------------------------


def settlements(rig, region, *rounds):
    refs = tuple(JobRef(task="t", round=number) for number in rounds)
    _, outgoing = rig.ask_next(region, unsettled=refs)
    ((_, answer),) = no_jobs(outgoing)
    return {(one.round, one.counted, one.discarded) for one in answer.settled}


def test_a_region_that_asks_learns_of_rounds_that_are_long_over(rig):
    begin(rig)
    for _ in range(4):
        commit_round(rig, "a", "b")
    rig.now_s += DAY_S
    assert settlements(rig, "eu", 1, 3, 7) == {(1, ("a", "b"), ()), (3, ("a", "b"), ())}
    assert settlements(rig, "eu") == set()


def test_a_round_that_is_open_is_not_settled(rig):
    job = begin(rig)
    rig.update("a", job)
    assert settlements(rig, "eu", job.round) == set()


def test_a_device_that_moved_learns_in_its_new_region_what_became_of_its_update(rig):
    begin(rig)
    commit_round(rig, "a", "b")
    move(rig, "a")
    assert settlements(rig, "us", 1) == {(1, ("a",), ())}


def test_what_was_accepted_and_then_abandoned_is_settled_as_discarded_to_who_asks(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.control("t", "cancel")
    assert settlements(rig, "eu", 1) == {(1, (), ("a",))}
