from dataclasses import replace

from central.core import tasks
from central.core.tasks import MAX_ABANDONED_IN_A_ROW, TaskProgress
from schemas.tasks import Target


def a_task(**changes):
    task = TaskProgress(rounds=3, selection_timeout_s=60.0, waiting_since_s=10.0)
    return replace(task, **changes)


def test_a_task_waits_for_devices_and_says_why_until_its_time_is_over():
    waiting = tasks.too_few(a_task(), "1 fit, 2 needed", 69.0)
    assert waiting.state == "waiting"
    assert waiting.reason == "1 fit, 2 needed"
    failed = tasks.too_few(waiting, "1 fit, 2 needed", 70.0)
    assert failed.state == "failed"
    assert failed.reason == "1 fit, 2 needed; gave up after 60 s (selection_timeout_s)"
    assert failed.is_final
    assert not failed.wants_round


def test_rounds_counts_committed_ones_and_numbers_are_never_used_twice():
    task, numbers = a_task(), []
    for outcome in ("abandon", "commit", "abandon", "commit", "commit"):
        task = tasks.open_round(task)
        numbers.append(task.round)
        assert task.state == "running"
        assert not task.wants_round
        if outcome == "commit":
            task = tasks.evaluate(tasks.commit_round(task), {}, 20.0)
        else:
            task = tasks.abandon_round(task, "why", 20.0)
    assert numbers == [1, 2, 3, 4, 5]
    assert (task.committed, task.abandoned) == (3, 2)
    assert task.state == "completed"


def test_five_rounds_abandoned_in_a_row_fail_the_task():
    task = a_task()
    for _ in range(MAX_ABANDONED_IN_A_ROW):
        assert not task.is_final
        task = tasks.abandon_round(tasks.open_round(task), "nobody came", 20.0)
    assert task.state == "failed"
    assert task.reason == "5 rounds abandoned in a row; the last: nobody came"


def test_a_commit_forgives_abandoned_rounds():
    task = a_task(rounds=9)
    for _ in range(MAX_ABANDONED_IN_A_ROW - 1):
        task = tasks.abandon_round(tasks.open_round(task), "x", 20.0)
    task = tasks.evaluate(tasks.commit_round(tasks.open_round(task)), {}, 20.0)
    task = tasks.abandon_round(tasks.open_round(task), "x", 20.0)
    assert not task.is_final


def test_an_abandoned_round_is_named_in_the_reason():
    task = tasks.abandon_round(tasks.open_round(a_task()), "2 of 3 reported", 20.0)
    assert task.reason == "round 1 abandoned: 2 of 3 reported"
    assert task.waiting_since_s == 20.0


def test_a_target_that_is_reached_completes_the_task_early():
    task = a_task(target=Target(metric="accuracy", value=0.9))
    below = tasks.evaluate(tasks.commit_round(tasks.open_round(task)), {"accuracy": 0.89}, 1.0)
    assert below.wants_round
    reached = tasks.evaluate(tasks.commit_round(tasks.open_round(below)), {"accuracy": 0.9}, 1.0)
    assert reached.state == "completed"
    assert reached.reason == "target accuracy 0.9 reached"


def test_a_loss_target_is_reached_from_above_and_a_missing_metric_never():
    target = Target(metric="loss", value=0.5)
    assert target.is_met({"loss": 0.5})
    assert not target.is_met({"loss": 0.6})
    assert not target.is_met({"accuracy": 1.0})


def test_a_paused_task_finishes_its_round_and_opens_no_other():
    task = tasks.pause(tasks.open_round(a_task()))
    assert (task.state, task.step) == ("paused", "round")
    assert tasks.resume(task, 10.0).state == "running"
    task = tasks.evaluate(tasks.commit_round(task), {}, 20.0)
    assert task.state == "paused"
    assert not task.wants_round
    resumed = tasks.resume(task, 500.0)
    assert resumed.wants_round
    assert resumed.waiting_since_s == 500.0


def test_a_task_paused_while_it_waits_is_paused_at_once():
    task = tasks.pause(a_task())
    assert task.state == "paused"
    assert tasks.resume(task, 30.0).state == "waiting"


def test_nothing_happens_to_a_task_that_has_ended():
    done = tasks.fail(a_task(), "x")
    assert tasks.pause(done) == done
    assert tasks.resume(done, 1.0) == done
    assert tasks.cancel(done) == done


def test_a_cancelled_task_says_so():
    task = tasks.cancel(tasks.open_round(a_task()))
    assert task.state == "cancelled"
    assert task.is_final


def test_a_task_prepares_its_first_model_before_its_first_round():
    preparing = tasks.prepare(a_task())
    assert not preparing.wants_round
    assert tasks.prepared(preparing, 30.0).wants_round


BACKUP = "central was restored from a backup of yesterday"


def restored(task, epoch=1):
    return tasks.restore(task, BACKUP, epoch, 500.0)


def test_after_a_restore_an_open_round_is_given_up_and_numbers_go_on_in_the_next_million():
    task = restored(a_task(step="round", state="running", round=7, committed=2, abandoned=1))
    assert (task.round, task.step, task.abandoned) == (1_000_001, "selecting", 2)
    assert task.wants_round
    assert task.waiting_since_s == 500.0
    assert tasks.lost_reason(task, 8) == f"rounds 8 to 1000000 are unknown: {BACKUP}"
    assert tasks.lost_reason(task, 1_000_000) is not None
    assert tasks.lost_reason(task, 1_000_001) is None


def test_a_restore_does_not_count_towards_the_rounds_abandoned_in_a_row():
    task = a_task(step="round", round=5, abandoned_in_a_row=MAX_ABANDONED_IN_A_ROW - 1)
    task = restored(task)
    assert not task.is_final
    assert task.abandoned_in_a_row == MAX_ABANDONED_IN_A_ROW - 1


def test_after_a_restore_a_task_between_two_rounds_has_lost_the_next_one():
    task = restored(a_task(round=4, committed=1))
    assert (task.round, task.abandoned) == (1_000_001, 0)
    assert tasks.lost_reason(task, 4) is not None


def test_after_a_restore_a_model_being_evaluated_stays_without_metrics():
    going_on = restored(a_task(step="evaluating", round=3, committed=2))
    assert (going_on.step, going_on.round) == ("selecting", 1_000_001)
    over = restored(a_task(step="evaluating", round=4, committed=3))
    assert (over.state, over.round, over.lost) == ("completed", 4, ())


def test_a_restore_leaves_paused_preparing_and_ended_tasks_what_they_are():
    paused = restored(a_task(step="round", is_paused=True, round=2))
    assert (paused.state, paused.wants_round) == ("paused", False)
    preparing = restored(a_task(step="preparing"))
    assert (preparing.step, preparing.round) == ("preparing", 1_000_001)
    ended = a_task(state="cancelled", round=9)
    assert restored(ended) == ended


def test_every_restore_takes_a_later_million():
    task = a_task(step="round", round=3)
    for epoch, number in ((1, 1_000_001), (2, 2_000_001), (5, 5_000_001), (1, 6_000_001)):
        task = restored(tasks.open_round(task), epoch)
        assert task.round == number
    assert tasks.first_round(0) == 1
    assert tasks.first_round(2) == 2_000_001


def test_a_task_that_is_younger_than_the_restore_knows_that_lower_rounds_were_anothers():
    young = a_task(round=tasks.first_round(1))
    assert "does not know" in tasks.lost_reason(young, 5)
    assert tasks.lost_reason(young, 1_000_002) is None
    assert tasks.lost_reason(a_task(round=9), 5) is None


def test_the_time_to_find_devices_begins_anew_when_the_clock_was_set_back():
    waiting = tasks.too_few(a_task(waiting_since_s=1e9), "1 fit, 2 needed", 69.0)
    assert (waiting.state, waiting.waiting_since_s) == ("waiting", 69.0)
    assert tasks.too_few(waiting, "1 fit, 2 needed", 129.0).state == "failed"
