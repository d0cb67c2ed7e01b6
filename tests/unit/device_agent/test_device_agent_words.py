"""What a device says of itself, what it asks, and whom it does not believe."""

from dataclasses import replace

import numpy as np
import pytest
from device_agent_bench import (
    DEVICE,
    OWN,
    REGION,
    SMALL,
    TASK,
    body_of,
    model_file,
    of_kind,
    plan_for,
    states,
    statuses,
)

from device_agent.core.job import JobKey, JobState, Refusal
from device_agent.core.jobs import accept, reject
from device_agent.service.ports import TrainingError
from device_agent.service.statuses import PACE_S, Statuses
from device_agent.service.wire import Wire
from schemas.envelope import decode_frame
from schemas.errors import IdentityError
from schemas.messages import (
    ControlNote,
    DeviceState,
    Heartbeat,
    JobRef,
    Next,
    NoJob,
)
from schemas.topics import Address, Kind, Topic
from transport.events import Connected
from transport.frames import FrameWriter


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
    question = decode_frame(of_kind(bench.sent, Kind.NEXT)[-1].payload).header.id
    bench.send(Kind.TASK, NoJob(), corr=question)
    assert bench.give(object()) == []
    body = Next()
    assert bench.send(Kind.TASK, body) == []
    assert bench.arrive(Topic(Kind.BLOCK, OWN, sha16="0" * 16, k=0), b"x") == []
    topic = Topic(Kind.STATE, OWN)
    assert states(bench.arrive(topic, bench.gateway.frame(NoJob()))) == []


def test_of_what_changes_within_a_moment_only_the_latest_is_told(tmp_path):
    words = Statuses(Wire(OWN, FrameWriter(DEVICE, 1, np.random.default_rng(0), lambda: 0.0)))
    job, _ = accept(JobKey(TASK, 1))
    words.put(job, 9.7)
    words.put(replace(job, state=JobState.TRAINING), 9.8)
    assert words.due(9.9) == []
    assert states(words.due(10.0)) == ["training"]
    words.committed()
    words.put(replace(job, state=JobState.UPLOADING), 10.1)
    assert words.due(10.1) == []
    words.put(replace(job, state=JobState.DONE), 10.2)
    assert words.next_due_s() == 10.0 + PACE_S
    assert states(words.due(10.3)) == ["done"]


def test_a_job_that_ends_within_a_moment_is_told_once_and_a_refusal_at_once(tmp_path):
    words = Statuses(Wire(OWN, FrameWriter(DEVICE, 1, np.random.default_rng(0), lambda: 0.0)))
    job, _ = accept(JobKey(TASK, 1))
    words.put(job, 10.0)
    words.put(replace(job, state=JobState.DONE), 10.1)
    assert words.due(10.2) == []
    assert states(words.due(10.25)) == ["done"]
    words.committed()
    assert words.next_due_s() is None
    refused, _ = reject(JobKey(TASK, 2), Refusal("policy", "not here"))
    words.put(refused, 11.0)
    assert states(words.due(11.0)) == ["rejected"]


def test_a_word_whose_turn_was_undone_is_told_again(tmp_path):
    words = Statuses(Wire(OWN, FrameWriter(DEVICE, 1, np.random.default_rng(0), lambda: 0.0)))
    job, _ = accept(JobKey(TASK, 1))
    words.put(job, 9.0)
    assert states(words.due(10.0)) == ["accepted"]
    assert states(words.due(10.0)) == ["accepted"]
    words.committed()
    assert words.due(99.0) == []
    assert words.next_due_s() is None
