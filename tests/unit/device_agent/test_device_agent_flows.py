"""One round on one device, message by message."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from device_agent_bench import (
    DEVICE,
    EVERYONE,
    LARGE,
    OWN,
    REGION,
    SMALL,
    TASK,
    Bench,
    body_of,
    model_file,
    of_kind,
    offered,
    plan_for,
    states,
    statuses,
)

from device_agent.core.job import JobKey, JobState, Refusal
from device_agent.core.jobs import accept
from device_agent.service.ports import TrainingError, TrainingFailed, TrainingProgressed
from device_agent.service.statuses import PACE_S, Statuses
from device_agent.service.wire import Wire
from schemas.envelope import decode_frame
from schemas.errors import IdentityError, PayloadError
from schemas.ids import transfer_id
from schemas.messages import (
    ControlNote,
    DeviceState,
    Get,
    Heartbeat,
    JobRef,
    Need,
    Next,
    NoJob,
    Settlement,
)
from schemas.topics import Address, Kind, Topic
from transport.events import Connected, MessageArrived
from transport.frames import FrameWriter
from transport.objects import describe
from updates.codecs.registry import create


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_on_connect_the_device_tells_its_birth_and_asks_for_its_job(bench):
    birth, question = bench.sent
    state = body_of(birth, DeviceState)
    assert birth.topic == Topic(Kind.STATE, OWN)
    assert (state.status, state.boot) == ("online", 1_000_000)
    assert state.data[0].name == "digits"
    assert state.data[0].examples == 20
    assert state.capabilities.backends == ("noise",)
    assert body_of(question, Next).holding == ()


def test_the_will_is_a_death_with_the_boot_of_the_birth(bench):
    (will,) = bench.wills
    assert will.topic == Topic(Kind.STATE, OWN)
    state = body_of(will, DeviceState)
    assert (state.status, state.boot) == ("offline", 1_000_000)


def test_the_farewell_is_a_death_on_purpose(bench):
    state = body_of(bench.agent.farewell(), DeviceState)
    assert (state.status, state.why) == ("offline", "stopped")


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
    assert manifest.layout_sha256 == SMALL.digest
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


def test_a_receipt_that_asks_for_patience_is_not_final(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "rejected", code="E_QUOTA", retry_after_s=30.0)
    assert bench.outbox.count() == 1
    assert of_kind(bench.wait(25), Kind.MANIFEST) == []
    assert of_kind(bench.wait(20), Kind.MANIFEST)


def test_a_receipt_of_another_object_is_ignored(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    assert bench.receipt(manifest, "accepted", sha256="0" * 64) == []
    assert bench.outbox.count() == 1


def test_a_repeated_receipt_is_harmless(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "accepted")
    assert bench.receipt(manifest, "accepted") == []
    assert bench.state() == "done"


@pytest.mark.parametrize("status", ["accepted", "duplicate", "late", "rejected"])
def test_what_the_final_receipt_says_is_kept_with_the_job(bench, status):
    bench.assign()
    manifest, _ = offered(bench.train())
    assert bench.store.get(JobKey(TASK, 1)).receipt is None
    bench.receipt(manifest, status)
    assert bench.store.get(JobKey(TASK, 1)).receipt == status


def test_a_receipt_is_kept_also_for_a_job_whose_task_ended_meanwhile(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    bench.receipt(manifest, "accepted")
    record = bench.store.get(JobKey(TASK, 1))
    assert (record.job.state.value, record.receipt) == ("done", "accepted")


def test_a_receipt_that_is_not_final_is_not_kept(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    bench.receipt(manifest, "held")
    assert bench.store.get(JobKey(TASK, 1)).receipt is None


def test_an_update_is_offered_until_it_is_receipted(bench):
    bench.assign()
    manifest, _ = offered(bench.train())
    repeats = of_kind(bench.wait(30), Kind.MANIFEST)
    assert 4 <= len(repeats) <= 8
    bench.receipt(manifest, "accepted")
    assert of_kind(bench.wait(300), Kind.MANIFEST) == []


def test_the_question_is_repeated_until_somebody_answers(bench):
    assert 4 <= len(of_kind(bench.wait(30), Kind.NEXT)) <= 8
    question = decode_frame(of_kind(bench.sent, Kind.NEXT)[-1].payload).header.id
    bench.send(Kind.TASK, NoJob(), corr=question)
    assert of_kind(bench.wait(290), Kind.NEXT) == []
    assert len(of_kind(bench.wait(20), Kind.NEXT)) >= 1


def test_an_assignment_of_its_own_answers_the_question(bench):
    bench.assign()
    assert of_kind(bench.wait(200), Kind.NEXT) == []


def test_jobs_that_are_not_kept_are_dropped(bench):
    bench.assign()
    bench.lose_connection()
    sent = bench.give(Connected("main"))
    (question,) = of_kind(sent, Kind.NEXT)
    assert body_of(question, Next).holding == (JobRef(task=TASK, round=1),)
    corr = decode_frame(question.payload).header.id
    keep = NoJob(keep=(JobRef(task=TASK, round=1),))
    assert bench.send(Kind.TASK, keep, corr=corr) == []
    assert bench.state() == "training"
    bench.send(Kind.TASK, NoJob(), corr=corr)
    assert bench.state() == "superseded"
    assert bench.worker.work is None


def test_an_answer_to_an_older_question_does_not_drop_a_newer_job(bench):
    corr = decode_frame(of_kind(bench.sent, Kind.NEXT)[0].payload).header.id
    bench.assign()
    bench.send(Kind.TASK, NoJob(), corr=corr)
    bench.send(Kind.TASK, NoJob(), corr="0" * 32)
    bench.send(Kind.TASK, NoJob())
    assert bench.state() == "training"


def test_an_update_on_its_way_is_held_and_never_dropped(bench):
    bench.assign()
    bench.train()
    sent = bench.give(Connected("main"))
    (question,) = of_kind(sent, Kind.NEXT)
    assert body_of(question, Next).holding == (JobRef(task=TASK, round=1),)
    bench.send(Kind.TASK, NoJob(), corr=decode_frame(question.payload).header.id)
    assert bench.state() == "uploading"


@pytest.mark.parametrize("outcome", ["counted", "discarded"])
def test_what_became_of_an_update_is_recorded(bench, outcome):
    bench.assign()
    bench.train()
    settled = Settlement(task=TASK, round=1, **{outcome: (DEVICE,)})
    bench.send(Kind.TASK, NoJob(settled=(settled,)))
    assert bench.store.get(JobKey(TASK, 1)).settled == outcome
    assert bench.state() == "uploading"


def test_a_settlement_rides_with_an_assignment_for_others_too(bench):
    bench.assign()
    bench.train()
    body, tail = bench.assignment(
        model_file(SMALL),
        plan_for(SMALL),
        2,
        cohort=("d2",),
        settled=(Settlement(task=TASK, round=1, counted=("d2", DEVICE)),),
    )
    assert bench.send(Kind.TASK, body, writer=bench.central, address=EVERYONE, tail=tail) == []
    assert bench.store.get(JobKey(TASK, 1)).settled == "counted"
    assert bench.store.get(JobKey(TASK, 2)) is None


def test_an_assignment_for_another_region_is_ignored(bench):
    body, tail = bench.assignment(model_file(SMALL), plan_for(SMALL), region="r2")
    assert bench.send(Kind.TASK, body, writer=bench.central, tail=tail) == []
    assert bench.store.get(JobKey(TASK, 1)) is None


def test_a_sender_that_is_neither_gateway_nor_central_is_refused(bench):
    stranger = FrameWriter("d2", 1, bench.gateway._rng, lambda: 0.0)
    with pytest.raises(IdentityError):
        bench.send(Kind.CONTROL, ControlNote(action="drain"), writer=stranger)
    assert not bench.agent._parts.surroundings.is_draining


def test_a_message_of_another_subtree_is_refused(bench):
    with pytest.raises(IdentityError):
        bench.send(Kind.CONTROL, ControlNote(action="drain"), address=Address(REGION, "d2"))


def test_a_rebirth_tells_the_birth_again_and_adopts_a_newer_boot(bench):
    (birth,) = bench.send(Kind.CONTROL, ControlNote(action="rebirth"))
    assert body_of(birth, DeviceState).boot == 1_000_000
    (birth,) = bench.send(Kind.CONTROL, ControlNote(action="rebirth", boot=2_000_000))
    assert body_of(birth, DeviceState).boot == 2_000_001
    assert decode_frame(birth.payload).header.boot == 2_000_001
    assert body_of(bench.wills[-1], DeviceState).boot == 2_000_001
    next_life = bench.reborn()
    assert body_of(next_life.sent[0], DeviceState).boot == 2_000_002


def test_heartbeats_come_in_their_time_and_only_while_connected(bench):
    beats = of_kind(bench.wait(300), Kind.HEARTBEAT)
    assert 8 <= len(beats) <= 13
    assert body_of(beats[0], Heartbeat).temperature_c == 40.0
    bench.lose_connection()
    assert bench.wait(300) == []
    assert bench.agent.next_due_s(bench.now_s) is None


def test_what_happened_while_disconnected_is_told_on_connect(bench):
    bench.assign()
    bench.lose_connection()
    bench.trainer.fault = TrainingError("too hot")
    assert bench.train() == []
    (status,) = statuses(bench.give(Connected("main")))
    assert (status.state, status.reason) == ("failed", "too hot")
    bench.lose_connection()
    assert statuses(bench.give(Connected("main"))) == []


def test_a_job_that_goes_on_is_told_on_every_connect(bench):
    bench.assign()
    assert states(bench.give(Connected("main"))) == ["training"]
    assert states(bench.reborn().sent) == ["training"]


def test_nothing_is_sent_by_a_tick_while_disconnected(bench):
    bench.lose_connection()
    assert list(bench.agent.tick(bench.now_s + 1000)) == []


def test_what_the_device_does_not_know_changes_nothing(bench):
    assert bench.give(object()) == []
    body = Next()
    assert bench.send(Kind.TASK, body) == []
    assert bench.arrive(Topic(Kind.BLOCK, OWN, sha16="0" * 16, k=0), b"x") == []
    topic = Topic(Kind.STATE, OWN)
    assert states(bench.arrive(topic, bench.gateway.frame(NoJob()))) == []


def test_two_rounds_with_the_same_bytes_keep_their_file_until_both_are_receipted(bench):
    for task in ("t-1", "t-2"):
        bench.assign(LARGE, task=task, epochs=0)
        for k in range(2):
            bench.block(model_file(LARGE), k)
        bench.train()
    first, second = (body for body, _ in _offers(bench))
    assert first.object.sha256 == second.object.sha256
    bench.receipt(first, "accepted")
    assert bench.objects.has(second.object.sha256)
    bench.receipt(second, "accepted")
    assert bench.objects.sizes() == {}


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


def test_an_update_whose_file_is_gone_fails_instead_of_being_offered(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    result = bench.worker.result()
    result.update.file.unlink()
    (status,) = statuses(bench.give(result))
    assert (status.state, status.code) == ("failed", "storage")
    assert bench.outbox.count() == 0


def test_the_update_of_a_stopped_job_leaves_no_file(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    result = bench.worker.result()
    bench.send(Kind.CONTROL, ControlNote(action="cancel", task=TASK))
    bench.give(result)
    assert not result.update.file.exists()


def test_a_failure_told_after_the_job_ended_changes_nothing(bench):
    bench.assign()
    bench.train()
    assert bench.give(TrainingFailed(JobKey(TASK, 1), Refusal("training", "late"))) == []
    assert bench.give(TrainingFailed(JobKey("t-9", 1), Refusal("training", "late"))) == []


def test_a_need_for_a_file_that_is_gone_is_not_answered(bench):
    bench.assign(LARGE)
    for k in range(2):
        bench.block(model_file(LARGE), k)
    manifest, _ = offered(bench.train())
    bench.objects.remove(manifest.object.sha256)
    need = Need(xfer=manifest.xfer, want=(0,))
    assert bench.send(Kind.NEED, need, xfer=manifest.xfer) == []


def _block_event(model, k):
    manifest, _ = describe(model)
    data = model[k * manifest.chunk_bytes : (k + 1) * manifest.chunk_bytes]
    topic = Topic(Kind.BLOCK, OWN, sha16=manifest.sha256[:16], k=k)
    return MessageArrived("main", topic.name, data, False, lambda: None)


def _offers(bench):
    found = {}
    for message in of_kind(bench.sent, Kind.MANIFEST):
        found.setdefault(message.topic.xfer, offered([message]))
    return list(found.values())


def test_of_what_changes_within_a_moment_only_the_latest_is_told(tmp_path):
    words = Statuses(Wire(OWN, FrameWriter(DEVICE, 1, np.random.default_rng(0), lambda: 0.0)))
    job, _ = accept(JobKey(TASK, 1))
    words.put(job)
    words.put(replace(job, state=JobState.TRAINING))
    assert states(words.due(10.0)) == ["training"]
    words.committed()
    words.put(replace(job, state=JobState.UPLOADING))
    assert words.due(10.1) == []
    words.put(replace(job, state=JobState.DONE))
    assert words.next_due_s() == 10.0 + PACE_S
    assert states(words.due(10.3)) == ["done"]


def test_a_word_whose_turn_was_undone_is_told_again(tmp_path):
    words = Statuses(Wire(OWN, FrameWriter(DEVICE, 1, np.random.default_rng(0), lambda: 0.0)))
    job, _ = accept(JobKey(TASK, 1))
    words.put(job)
    assert states(words.due(10.0)) == ["accepted"]
    assert states(words.due(10.0)) == ["accepted"]
    words.committed()
    assert words.due(99.0) == []
    assert words.next_due_s() is None
