"""The life of one job."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.core.job import ENDED, Job, JobKey, JobState, Refusal
from device_agent.core.job_events import (
    AssignedAgain,
    Cancelled,
    Dropped,
    FindModel,
    ModelArrived,
    ModelAwaited,
    OfferAgain,
    Overtaken,
    Progressed,
    Receipted,
    Report,
    Restarted,
    StartTraining,
    StopWork,
    UpdateStored,
    WorkFailed,
)
from device_agent.core.jobs import MAX_STARTS, accept, reject, transition

KEY = JobKey("t-1", 3)
XFER = "ab" * 16

EVENTS = st.one_of(
    st.just(ModelAwaited()),
    st.just(ModelArrived()),
    st.builds(Progressed, st.floats(0, 1)),
    st.just(UpdateStored(XFER)),
    st.just(WorkFailed(Refusal("training", "diverged"))),
    st.just(Receipted()),
    st.just(Overtaken("a newer round")),
    st.just(Cancelled()),
    st.just(Dropped("over the quota")),
    st.just(AssignedAgain()),
    st.builds(Restarted, st.booleans()),
)


def job_in(state: JobState) -> Job:
    return Job(KEY, state)


def test_an_accepted_job_reports_and_looks_for_its_model():
    assert accept(KEY) == (Job(KEY, JobState.ACCEPTED), (Report(), FindModel()))


def test_a_refused_job_ends_at_once_with_its_cause():
    cause = Refusal("policy", "max_steps")
    assert reject(KEY, cause) == (Job(KEY, JobState.REJECTED, cause), (Report(),))


def test_a_job_goes_through_every_state_to_done():
    job, _ = accept(KEY)
    seen = []
    for event in (ModelAwaited(), ModelArrived(), UpdateStored(XFER), Receipted()):
        job, _ = transition(job, event)
        seen.append(job.state.value)
    assert seen == ["downloading", "training", "uploading", "done"]
    assert job.xfer == XFER


def test_a_model_that_is_here_starts_training_without_a_download():
    job, instructions = transition(job_in(JobState.ACCEPTED), ModelArrived())
    assert job.state is JobState.TRAINING
    assert instructions == (Report(progress=0.0), StartTraining())


def test_training_is_begun_once_although_its_model_arrives_twice():
    job, _ = transition(job_in(JobState.ACCEPTED), ModelArrived())
    assert transition(job, ModelArrived()) == (job, ())


def test_training_that_never_ends_is_given_up():
    tired = replace(job_in(JobState.ACCEPTED), starts=MAX_STARTS)
    job, instructions = transition(tired, ModelArrived())
    assert job.state is JobState.FAILED
    assert job.cause is not None
    assert job.cause.code == "training"
    assert StartTraining() not in instructions


def test_progress_is_told_only_while_training():
    assert transition(job_in(JobState.TRAINING), Progressed(0.5))[1] == (Report(0.5),)
    assert transition(job_in(JobState.ACCEPTED), Progressed(0.5))[1] == ()


@pytest.mark.parametrize("state", [JobState.ACCEPTED, JobState.DOWNLOADING, JobState.TRAINING])
def test_a_restart_begins_again_before_the_upload(state):
    job, instructions = transition(job_in(state), Restarted())
    assert job.state is JobState.ACCEPTED
    assert instructions == (FindModel(),)


@pytest.mark.parametrize(
    "event",
    [Restarted(), Overtaken("newer"), Cancelled(), WorkFailed(Refusal("a", "b"))],
)
def test_a_stored_update_is_not_taken_back(event):
    job = job_in(JobState.UPLOADING)
    assert transition(job, event) == (job, ())


def test_a_newer_round_stops_the_work_and_says_so():
    job, instructions = transition(job_in(JobState.TRAINING), Overtaken("round 4"))
    assert job.state is JobState.SUPERSEDED
    assert job.cause == Refusal("superseded", "round 4")
    assert instructions == (StopWork(), Report())


def test_an_update_that_had_to_go_is_superseded_and_says_why():
    job, instructions = transition(job_in(JobState.UPLOADING), Dropped("over the quota"))
    assert job.state is JobState.SUPERSEDED
    assert job.cause == Refusal("superseded", "over the quota")
    assert Report() in instructions
    assert transition(job, Receipted()) == (job, ())
    working = job_in(JobState.TRAINING)
    assert transition(working, Dropped("over the quota")) == (working, ())


def test_a_repeated_assignment_gets_the_latest_status_again():
    assert transition(job_in(JobState.TRAINING), AssignedAgain())[1] == (Report(),)
    assert transition(job_in(JobState.DONE), AssignedAgain())[1] == (Report(),)
    again = transition(job_in(JobState.UPLOADING), AssignedAgain())[1]
    assert again == (Report(), OfferAgain())


def test_a_receipt_before_the_upload_changes_nothing():
    job = job_in(JobState.TRAINING)
    assert transition(job, Receipted()) == (job, ())


@settings(max_examples=100)
@given(st.lists(EVENTS, max_size=30))
def test_a_job_ends_at_most_once_and_then_never_changes(events):
    job, _ = accept(KEY)
    for event in events:
        before = job
        job, _ = transition(job, event)
        if before.state in ENDED:
            assert job == before


@settings(max_examples=100)
@given(st.lists(EVENTS, max_size=30))
def test_a_transfer_once_stored_stays_the_same(events):
    job, _ = accept(KEY)
    for event in events:
        before = job
        job, _ = transition(job, event)
        if before.xfer is not None:
            assert job.xfer == before.xfer


def test_restarts_in_order_are_not_counted_as_starts_of_training():
    job = replace(job_in(JobState.TRAINING), starts=1)
    for _ in range(MAX_STARTS + 5):
        job, _ = transition(job, Restarted(was_clean=True))
        job, _ = transition(job, ModelArrived())
    assert (job.state, job.starts) == (JobState.TRAINING, 1)
