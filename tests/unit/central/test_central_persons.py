"""What persons submit and want done, and the statuses that they read."""

import json

import pytest

from schemas.tasks import CentralState
from schemas.topics import Kind, Topic
from tests.support.central_fixture import (
    begin,
)
from transport.events import Connected


def test_a_cancelled_task_ends_its_round_and_tells_the_gateways(rig):
    job = begin(rig)
    told = [out for out in rig.control("t", "cancel") if out.topic.kind is Kind.CONTROL]
    assert len(told) == 1
    status = rig.status("t")
    assert status.state == "cancelled"
    assert rig.update("a", job).status == "late"
    assert rig.control("t", "resume") == []


def test_a_paused_task_opens_no_round_until_it_is_resumed(rig):
    job = begin(rig)
    rig.control("t", "pause")
    rig.update("a", job)
    rig.update("b", job)
    rig.work()
    assert rig.status("t").state == "paused"
    assert rig.newest().round == 1
    rig.control("t", "resume")
    assert rig.newest().round == 2


def test_a_repeated_submission_is_the_same_task(rig):
    rig.submit(task="t", rounds=1)
    rig.submit(task="t", rounds=1)
    assert len(rig.store.live_tasks()) == 1


def test_a_task_without_an_id_is_the_same_until_ten_minutes_after_its_end(rig):
    rig.submit(selection_timeout_s=1)
    (name,) = [task.task for task in rig.store.live_tasks()]
    assert name.startswith("t-")
    rig.submit(selection_timeout_s=1)
    rig.tick(2)
    assert rig.status(name).state == "failed"
    rig.submit(selection_timeout_s=1)
    assert rig.store.live_tasks() == []
    rig.now_s += 700
    rig.submit(selection_timeout_s=1)
    assert [task.task for task in rig.store.live_tasks()] == [f"{name}-2"]


def test_a_retained_submission_does_not_start_a_task(rig):
    rig.submit(retained=True)
    assert rig.store.live_tasks() == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"min_clinets": 2}, "min_clinets: unknown field; did you mean 'min_clients'?"),
        ({"model": "nope"}, "'nope' is not known; there are: big, mlp"),
        ({"model": "net.onnx"}, "is an ONNX file"),
        ({"codec": "zip"}, "codec: 'zip'"),
        ({"codec": "topk", "codec_params": {"fraction": 2.0}}, "fraction: 2.0"),
        ({"strategy": "best"}, "strategy: 'best' is not known"),
        ({"cohort": 1}, "cohort: 1 is below min_clients: 2 (MIN_CLIENTS)"),
    ],
)
def test_a_task_that_cannot_be_understood_is_rejected_in_words(rig, fields, text):
    rig.submit(task="t", **fields)
    (status,) = rig.rejections()
    assert status.task == "t"
    assert text in status.reason
    assert rig.store.live_tasks() == []


def test_a_rejection_never_covers_the_status_of_a_task_that_exists(rig):
    begin(rig)
    rig.submit(task="t", min_clinets=2)
    (status,) = rig.rejections()
    assert status.task.startswith("t-")
    assert rig.status("t").state == "running"


@pytest.mark.parametrize("payload", [b"", b"[1", b"[" * 100_000, b"x" * (2 << 20), b"\xff\xfe"])
def test_what_is_no_json_is_rejected_under_its_digest(rig, payload):
    rig.arrive(Topic(Kind.TASK_SUBMIT), payload)
    (status,) = rig.rejections()
    assert status.task.startswith("t-")


def test_statuses_of_older_tasks_are_cleared_beyond_the_newest_hundred(rig):
    for number in range(102):
        rig.submit(task=f"t{number}", selection_timeout_s=0)
        rig.tick(1)
    cleared = [
        out.topic.task
        for out in rig.published
        if out.topic.kind is Kind.TASK_STATUS and out.payload == b""
    ]
    assert cleared == ["t0", "t1"]


def test_central_says_that_it_is_there_on_every_connect(rig):
    said = [
        CentralState.model_validate_json(out.payload)
        for out in rig.event(Connected("main"))
        if out.topic.kind is Kind.CENTRAL_STATE
    ]
    assert [(state.status, state.boot) for state in said] == [("online", rig.desk.boot)]


def test_each_connection_has_a_number_which_other_news_of_central_leaves_as_it_is(rig):
    def told(outgoing):
        found = [out.payload for out in outgoing if out.topic.kind is Kind.CENTRAL_STATE]
        return [CentralState.model_validate_json(payload).connection for payload in found]

    (first,) = told(rig.event(Connected("main")))
    (second,) = told(rig.event(Connected("main")))
    assert second == first + 1
    before = len(rig.published)
    rig.tick(400)  # central repeats itself in between
    repeated = told(rig.published[before:])
    assert repeated
    assert set(repeated) == {second}


def test_a_status_is_plain_json_that_names_what_a_person_asks(rig):
    begin(rig)
    rig.status("t")
    text = [o.payload for o in rig.published if o.topic.kind is Kind.TASK_STATUS][-1]
    found = json.loads(text)
    assert (found["state"], found["round"], found["phase"]) == ("running", 1, "reporting")
    assert (found["cohort"], found["min_clients"], found["reported"]) == (3, 2, 0)
