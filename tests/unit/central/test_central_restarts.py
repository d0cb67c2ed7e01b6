"""What central was doing when it was killed is done again, and not for ever."""

from dataclasses import replace

from central.service.orchestrator import Orchestrator
from tests.support.central_fixture import (
    CentralRig,
    TinyModeler,
    assignments,
    begin,
)
from transport.events import Connected


def test_central_restarted_in_a_round_goes_on_with_it(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.restart()
    assert assignments(rig.published[-6:])[-1].round == 1
    assert rig.update("a", job).status == "duplicate"
    rig.update("b", job)
    rig.work()
    assert rig.newest().round == 2


def test_central_killed_while_it_aggregates_gives_the_same_bits_after_a_restart(rig, tmp_path):
    job = begin(rig)
    rig.update("a", job, 0.3, 7)
    rig.update("b", job, 0.7, 9)
    lost = rig.worker.jobs.work(rig.worker.waiting.pop())
    rig.restart()
    rig.work()
    assert rig.newest().round == 2
    assert rig.newest().model.sha256 == lost.sha256


def test_central_killed_before_the_first_model_builds_it_after_the_restart(rig):
    rig.fleet("a", "b")
    rig.submit(task="t")
    rig.restart()
    rig.work()
    assert rig.newest().round == 1


def test_central_killed_before_a_model_was_evaluated_evaluates_it_after_the_restart(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5, 0.6)
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    rig.event(rig.worker.jobs.work(rig.worker.waiting.pop()))
    assert len(rig.worker.waiting) == 1
    rig.restart()
    rig.work()
    assert rig.newest().round == 2
    assert rig.status("t").metrics == {"accuracy": 0.5}
    rig.connection.close()


def killed_while_aggregating(rig, times):
    job = begin(rig, rounds=1)
    rig.update("a", job)
    rig.update("b", job)
    for _ in range(times):
        rig.worker.waiting.clear()
        rig.restart()


def test_an_aggregation_that_ends_central_each_time_is_given_up_after_five_starts(rig):
    killed_while_aggregating(rig, 4)
    assert len(rig.worker.waiting) == 1
    rig.worker.waiting.clear()
    rig.restart()
    assert rig.worker.waiting == []
    status = rig.status("t")
    (ended,) = status.history
    assert ended.outcome == "abandoned"
    assert "aggregation was begun 5 times and never ended" in ended.reason
    assert {row.settled for row in rig.store.contributions("t", 1)} == {"discarded"}
    assert rig.newest().round == 2


def test_an_aggregation_that_succeeds_at_the_fifth_start_is_committed(rig):
    killed_while_aggregating(rig, 4)
    rig.work()
    assert rig.status("t").state == "completed"


def test_restarts_in_order_count_against_no_aggregation(rig):
    rig.was_clean = True
    killed_while_aggregating(rig, 10)
    rig.work()
    assert rig.status("t").state == "completed"


def test_a_first_model_that_ends_central_each_time_fails_the_task(rig):
    rig.fleet("a", "b")
    rig.submit(task="t")
    for _ in range(5):
        assert len(rig.worker.waiting) == 1
        rig.worker.waiting.clear()
        rig.restart()
    assert rig.worker.waiting == []
    status = rig.status("t")
    assert status.state == "failed"
    assert "building the first model was begun 5 times" in status.reason


def test_an_evaluation_that_ends_central_each_time_is_left_out(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5,) * 9
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig, rounds=2)
    rig.update("a", job)
    rig.update("b", job)
    rig.event(rig.worker.jobs.work(rig.worker.waiting.pop()))
    for _ in range(5):
        assert len(rig.worker.waiting) == 1
        rig.worker.waiting.clear()
        rig.restart()
    rig.tick()
    assert rig.worker.waiting == []
    assert rig.newest().round == 2
    assert rig.status("t").history[0].metrics == {}
    rig.connection.close()


def test_a_task_that_comes_before_the_word_of_the_connection_was_not_interrupted(rig):
    """The broker kept its message: it may be handled first, and its model is prepared once."""
    rig.fleet("a", "b", "c")
    rig.desk = replace(rig.desk, _in_hand=set())  # as in a life that has just begun
    rig.handler = Orchestrator(rig.desk, rig.worker, keep_task_s=1e9)
    rig.submit(task="t", cohort=3)
    rig.event(Connected("main"))
    assert rig.store.task("t").progress.interruptions == 0
    assert len(rig.worker.waiting) == 1
