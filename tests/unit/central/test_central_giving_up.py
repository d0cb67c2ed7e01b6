"""What cannot be handled ends, is named in words, and is not waited for."""

import pytest

from central.core.rounds import Phase
from central.service.ports import ModelEvaluated, ModelPrepared, RoundAggregated
from schemas.tasks import CentralState
from schemas.topics import Address, Kind, Topic
from tests.support.central_fixture import DIGITS, CentralRig, TinyModeler
from transport.database import transaction
from transport.events import MessageArrived
from transport.parking import Parking

WHY = "KeyError: 'bug'"


def begin(rig, **task):
    rig.fleet("a", "b", "c")
    rig.submit(task="t", codec="raw-f32", cohort=3, **task)
    rig.work()
    return rig.newest()


def give_up(rig, event):
    with transaction(rig.connection):
        outgoing = list(rig.handler.give_up(event, WHY, rig.now_s))
    rig.published += outgoing
    return outgoing


def message(topic, payload):
    name = topic if isinstance(topic, str) else topic.name
    return MessageArrived("main", name, payload, retained=False, ack=lambda: None)


def test_a_round_whose_result_cannot_be_handled_is_abandoned_with_the_reason(rig):
    job = begin(rig)
    rig.update("a", job)
    rig.update("b", job)
    rig.worker.waiting.clear()
    give_up(rig, RoundAggregated("t", 1, "ab" * 32, b""))
    assert rig.store.round("t", 1).state.phase is Phase.ABANDONED
    (ended,) = rig.status("t").history
    assert WHY in ended.reason
    assert {row.settled for row in rig.store.contributions("t", 1)} == {"discarded"}


def test_a_task_whose_first_model_cannot_be_handled_fails_with_the_reason(rig):
    rig.fleet("a", "b")
    rig.submit(task="t")
    give_up(rig, ModelPrepared("t", DIGITS, "ab" * 32, 1, 1, "cd" * 32))
    status = rig.status("t")
    assert status.state == "failed"
    assert WHY in status.reason


def test_a_task_goes_on_without_metrics_that_cannot_be_handled(tmp_path):
    modeler = TinyModeler()
    modeler.accuracies = (0.5, 0.6)
    rig = CentralRig(tmp_path, modeler)
    job = begin(rig, rounds=2)
    rig.update("a", job)
    rig.update("b", job)
    aggregated = rig.worker.jobs.work(rig.worker.waiting.pop())
    rig.event(aggregated)
    give_up(rig, ModelEvaluated("t", 1, {"accuracy": 0.5}))
    rig.tick()
    assert rig.newest().round == 2
    rig.connection.close()


def test_a_submission_that_central_fails_at_is_rejected_in_words(rig):
    give_up(rig, message(Topic(Kind.TASK_SUBMIT), b'{"model": "mlp", "task": "mine"}'))
    (status,) = rig.rejections()
    assert status.task == "mine"
    assert WHY in status.reason
    assert "parked" in status.reason


def test_a_task_that_exists_is_not_told_to_be_rejected(rig):
    rig.submit()
    (task,) = rig.store.live_tasks()
    give_up(rig, message(Topic(Kind.TASK_SUBMIT), b'{"model": "mlp"}'))
    assert rig.rejections() == []
    assert rig.status(task.task).state == "waiting"


def test_a_message_of_a_task_is_named_in_its_status(rig):
    job = begin(rig)
    _, frame, _ = rig.update_frame("a", job)
    topic = Topic(Kind.MANIFEST, Address.of_gateway("eu"), xfer="ab" * 16)
    give_up(rig, message(topic, frame))
    status = rig.status("t")
    assert status.reason == f"a message of MANIFEST could not be handled and is parked: {WHY}"
    assert status.state == "running"


def test_a_control_of_a_task_is_named_in_its_status(rig):
    begin(rig)
    give_up(rig, message(Topic(Kind.TASK_CONTROL, task="t"), b"{}"))
    assert "TASK_CONTROL" in rig.status("t").reason


@pytest.mark.parametrize("payload", [b"", b"\xff" * 9])
def test_a_message_that_belongs_to_no_task_is_only_parked(rig, payload):
    assert give_up(rig, message(Topic(Kind.STATE, Address.of_gateway("eu")), payload)) == []


def test_central_names_what_is_parked_in_its_state_and_again_when_it_is_dropped(rig):
    parking = Parking(rig.connection)
    rig.desk.parked = parking.summary

    def told():
        found = [o.payload for o in rig.tick(1.0) if o.topic.kind is Kind.CENTRAL_STATE]
        return [CentralState.model_validate_json(payload) for payload in found]

    assert told() == []
    parking.park(message("fl/v1/x", b"bad"), WHY, 3, 5.0)
    (state,) = told()
    assert (state.status, state.parked) == ("online", 1)
    (note,) = state.parked_newest
    assert (note.topic, note.error, note.tries) == ("fl/v1/x", WHY, 3)
    assert told() == []
    parking.drop(None)
    (state,) = told()
    assert (state.parked, state.parked_newest) == (0, ())
