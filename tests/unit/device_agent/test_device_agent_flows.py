"""One round on one device, message by message."""

import hashlib

import pytest
from device_agent_bench import (
    DEVICE,
    EVERYONE,
    LARGE,
    OWN,
    SMALL,
    TASK,
    body_of,
    model_file,
    of_kind,
    offered,
    plan_for,
    states,
    statuses,
)

from device_agent.core.job import JobKey, Refusal
from device_agent.service.ports import TrainingError, TrainingFailed, TrainingProgressed
from schemas.envelope import decode_frame
from schemas.errors import PayloadError
from schemas.ids import transfer_id
from schemas.messages import (
    ControlNote,
    Get,
    Need,
)
from schemas.topics import Kind, Topic
from transport.events import MessageArrived
from transport.objects import describe
from updates.codecs.registry import create


def test_a_small_job_goes_from_assignment_to_receipt(bench):
    taken = bench.assign()
    assert states(taken) == ["training"]
    assert bench.worker.begun == [JobKey(TASK, 1)]

    sent = bench.train()
    assert states(sent) == ["uploading"]
    manifest, tail = offered(sent)
    assert manifest.object.inline
    assert hashlib.sha256(tail).hexdigest() == manifest.object.sha256
    assert manifest.xfer == transfer_id(DEVICE, TASK, 1, manifest.object.sha256)
    assert manifest.layout_sha256 is None  # the digest of the base model says it
    assert manifest.base_model_sha256 == hashlib.sha256(model_file(SMALL)).hexdigest()
    assert (manifest.num_examples, manifest.metrics) == (20, {"loss": 0.5})
    assert create("raw-f32").decode(tail, SMALL).shape == (15,)
    header = decode_frame(of_kind(sent, Kind.MANIFEST)[0].payload).header
    assert (header.src, header.task, header.round) == (DEVICE, TASK, 1)

    assert states(bench.receipt(manifest, "held")) == []
    assert bench.outbox.count() == 1
    assert states(bench.receipt(manifest, "accepted")) == ["done"]
    assert bench.outbox.count() == 0
    assert bench.objects.sizes() == {}


def test_a_large_job_is_pulled_down_and_pulled_up_in_chunks(bench):
    model = model_file(LARGE)
    assert states(bench.assign(LARGE)) == ["downloading"]
    (ask,) = of_kind(bench.wait(1.5), Kind.GET)
    get = body_of(ask, Get)
    assert get.sha256 == hashlib.sha256(model).hexdigest()
    assert get.want == (0, 1)
    bench.block(model, 0)
    assert states(bench.block(model, 1)) == ["training"]

    sent = bench.train()
    manifest, digests = offered(sent)
    assert not manifest.object.inline
    assert len(digests) == 32 * manifest.object.chunks
    need = Need(xfer=manifest.xfer, want=(0, 1))
    chunks = of_kind(bench.send(Kind.NEED, need, xfer=manifest.xfer), Kind.CHUNK)
    assert [chunk.topic.k for chunk in chunks] == [0, 1]
    whole = b"".join(chunk.payload for chunk in chunks)
    assert hashlib.sha256(whole).hexdigest() == manifest.object.sha256

    assert bench.objects.has(manifest.object.sha256)
    assert states(bench.receipt(manifest, "accepted")) == ["done"]
    assert bench.objects.sizes() == {}


def test_a_multicast_model_is_not_asked_for(bench):
    model = model_file(LARGE)
    bench.assign(LARGE, address=EVERYONE)
    bench.wait(0.5)
    bench.block(model, 1, EVERYONE)
    bench.wait(0.5)
    assert states(bench.block(model, 0, EVERYONE)) == ["training"]
    assert of_kind(bench.sent, Kind.GET) == []


def test_a_model_that_lies_fails_the_job(bench):
    model = model_file(LARGE)
    body, tail = bench.assignment(model, plan_for(LARGE))
    lie = body.model.model_copy(update={"sha256": "0" * 64})
    body = body.model_copy(update={"model": lie})
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    for k in range(2):
        chunk = model[k * lie.chunk_bytes : (k + 1) * lie.chunk_bytes]
        bench.arrive(Topic(Kind.BLOCK, OWN, sha16="0" * 16, k=k), chunk)
    assert statuses(bench.sent)[-1].code == "model"


def test_an_inline_model_with_another_digest_is_refused_and_leaves_nothing(bench):
    body, tail = bench.assignment(model_file(SMALL), plan_for(SMALL))
    with pytest.raises(PayloadError, match="sha256"):
        bench.send(Kind.TASK, body, writer=bench.central, tail=tail[:-1] + b"\0")
    assert bench.store.get(JobKey(TASK, 1)) is None


def test_a_model_that_is_no_model_fails_the_job(bench):
    body, tail = bench.assignment(b"no safetensors", plan_for(SMALL))
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    assert statuses(bench.train())[0].code == "model"


def test_a_model_of_another_layout_fails_the_job(bench):
    body, tail = bench.assignment(model_file(LARGE)[:], plan_for(LARGE))
    other = body.plan.model_copy(update={"layout_sha256": "1" * 64})
    small, tail = bench.assignment(model_file(SMALL), plan_for(SMALL))
    small = small.model_copy(update={"plan": other})
    bench.send(Kind.TASK, small, writer=bench.central, tail=tail)
    status = statuses(bench.train())[0]
    assert (status.state, status.code) == ("failed", "model")
    assert "layout_sha256" in status.reason


def test_an_unknown_codec_fails_the_job(bench):
    body, tail = bench.assignment(model_file(SMALL), plan_for(SMALL, codec="zip"))
    bench.send(Kind.TASK, body, writer=bench.central, tail=tail)
    assert statuses(bench.train())[0].code == "codec"


def test_a_trainer_that_gives_up_fails_the_job_with_its_reason(bench):
    bench.assign()
    bench.trainer.fault = TrainingError("the loss is not finite")
    (status,) = statuses(bench.train())
    assert (status.state, status.code) == ("failed", "training")
    assert status.reason == "the loss is not finite"
    assert bench.worker.work is None


def test_progress_is_told_while_training(bench):
    bench.assign()
    (status,) = statuses(bench.give(TrainingProgressed(JobKey(TASK, 1), 0.25)))
    assert (status.state, status.progress) == ("training", 0.25)


def test_a_repeated_assignment_gets_the_status_again_and_no_second_job(bench):
    bench.assign()
    assert states(bench.assign(address=EVERYONE)) == ["training"]
    assert bench.worker.begun == [JobKey(TASK, 1)]


def test_a_repeated_assignment_while_uploading_offers_the_update_again(bench):
    bench.assign()
    first, _ = offered(bench.train())
    again = bench.assign()
    assert states(again) == ["uploading"]
    assert offered(again)[0] == first


def test_a_newer_round_stops_the_older_one(bench):
    bench.assign(number=1)
    stale = bench.worker.result()
    sent = bench.assign(number=2)
    told = [(status.round, status.state, status.code) for status in statuses(sent)]
    assert told == [(1, "failed", "superseded"), (2, "training", None)]
    assert bench.worker.work.key == JobKey(TASK, 2)
    assert bench.give(stale) == []
    assert bench.outbox.count() == 0


def test_an_older_round_that_comes_late_is_refused(bench):
    bench.assign(number=2)
    (status,) = statuses(bench.assign(number=1))
    assert (status.round, status.state, status.code) == (1, "rejected", "superseded")
    assert bench.worker.work.key == JobKey(TASK, 2)


def test_a_newer_round_leaves_a_stored_update_to_its_receipt(bench):
    bench.assign(number=1)
    manifest, _ = offered(bench.train())
    bench.assign(number=2)
    assert bench.state(1) == "uploading"
    assert states(bench.receipt(manifest, "late")) == ["done"]


def test_a_cancelled_task_stops_the_work(bench):
    bench.assign()
    (status,) = statuses(bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK)))
    assert (status.state, status.code) == ("failed", "cancelled")
    assert bench.worker.work is None


def test_a_cancelled_task_keeps_a_stored_update_until_its_receipt(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    manifest, _ = offered(bench.train())
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    assert bench.state() == "uploading"
    assert bench.outbox.count() == 1
    assert states(bench.receipt(manifest, "late")) == ["done"]
    assert bench.outbox.count() == 0
    assert bench.objects.sizes() == {}


def test_a_cancel_of_another_task_changes_nothing(bench):
    bench.assign()
    assert bench.send(Kind.CONTROL, ControlNote(action="cancel", task="t-2")) == []
    assert bench.send(Kind.CONTROL, ControlNote(action="cancel")) == []
    assert bench.state() == "training"


def test_an_event_whose_turn_is_undone_has_its_effect_when_it_comes_again(bench):
    bench.assign(LARGE)
    model = model_file(LARGE)
    bench.block(model, 0)
    bench.wait(0.1)
    last = _block_event(model, 1)
    bench.undone(last)
    assert bench.state() == "downloading"
    assert states(bench.give(last)) == ["training"]
    result = bench.worker.result()
    bench.undone(result)
    assert bench.outbox.count() == 0
    assert states(bench.give(result)) == ["uploading"]
    assert bench.outbox.count() == 1


def test_a_failure_told_after_the_job_ended_changes_nothing(bench):
    bench.assign()
    bench.train()
    late = Refusal("training", "late")
    assert states(bench.give(TrainingFailed(JobKey(TASK, 1), late))) == []
    assert states(bench.give(TrainingFailed(JobKey("t-9", 1), late))) == []
    assert bench.state() == "uploading"


def _block_event(model, k):
    manifest, _ = describe(model)
    data = model[k * manifest.chunk_bytes : (k + 1) * manifest.chunk_bytes]
    topic = Topic(Kind.BLOCK, OWN, sha16=manifest.sha256[:16], k=k)
    return MessageArrived("main", topic.name, data, False, lambda: None)
