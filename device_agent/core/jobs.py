"""The life of one job: one round of one task on this device.

::

    accepted ----> downloading ----> training ----> uploading ----> done
        |               |               |               |
        +---------------+---------------+               |
                        |                               |
              failed, superseded            superseded (over the quota)

``rejected`` is where a job that the device refuses starts and ends. Rules:

1. A job that ended never changes again, whatever arrives.
2. An update that is stored is uploaded: neither a newer round nor the end of its task takes it
   back, since it may have been counted already. Only the quota of the outbox does.
3. A restart begins again before ``uploading``; training is deterministic, its bytes are the same.
4. Training that was begun ``MAX_STARTS`` times without an end is given up: it is what ends the
   program. A start after an end in order does not count.
5. A model that its deltas do not give is found anew, from any state before ``uploading``.
"""

from dataclasses import replace

from typing_extensions import assert_never

from device_agent.core.job import Job, JobKey, JobState, Refusal
from device_agent.core.job_events import (
    AssignedAgain,
    Cancelled,
    Dropped,
    FindModel,
    Instruction,
    JobEvent,
    ModelArrived,
    ModelAwaited,
    ModelLost,
    OfferAgain,
    Overtaken,
    Progressed,
    Receipted,
    Report,
    Restarted,
    StartTraining,
    StopWork,
    UpdateStored,
    WorkEvent,
    WorkFailed,
)

MAX_STARTS = 5

Step = tuple[Job, tuple[Instruction, ...]]


def accept(key: JobKey) -> Step:
    """Return a new job and what to do first."""
    return Job(key), (Report(), FindModel())


def reject(key: JobKey, cause: Refusal) -> Step:
    """Return a job that this device refuses."""
    return Job(key, JobState.REJECTED, cause), (Report(),)


def transition(job: Job, event: JobEvent) -> Step:
    """Return the job after ``event`` and what must be done; see the rules above.

    An event that does not fit the job's state changes nothing: messages arrive more than once.
    """
    match event:
        case AssignedAgain():
            uploading = job.state is JobState.UPLOADING
            return job, (Report(), OfferAgain()) if uploading else (Report(),)
        case Receipted():
            return _receipted(job)
        case Dropped(reason):
            return _drop(job, reason)
        case Cancelled():
            return _cancel(job)
        case _:
            return _work(job, event) if job.is_before_upload else (job, ())


def _work(job: Job, event: WorkEvent) -> Step:
    step: Step = (job, ())
    match event:
        case Restarted() | ModelLost():
            step = _restart(job, was_clean=isinstance(event, Restarted) and event.was_clean)
        case ModelAwaited():
            step = _await_model(job)
        case ModelArrived():
            step = _start(job)
        case Progressed(share):
            step = _progress(job, share)
        case UpdateStored(xfer):
            step = replace(job, state=JobState.UPLOADING, xfer=xfer), (Report(),)
        case WorkFailed(cause):
            step = _end(job, JobState.FAILED, cause)
        case Overtaken(reason):
            step = _end(job, JobState.SUPERSEDED, Refusal("superseded", reason))
        case _:
            assert_never(event)
    return step


def _restart(job: Job, *, was_clean: bool) -> Step:
    uncounted = 1 if was_clean and job.state is JobState.TRAINING else 0
    again = replace(job, state=JobState.ACCEPTED, starts=job.starts - uncounted)
    return again, (FindModel(),)


def _progress(job: Job, share: float) -> Step:
    return job, (Report(share),) if job.state is JobState.TRAINING else ()


def _receipted(job: Job) -> Step:
    if job.state is not JobState.UPLOADING:
        return job, ()
    return replace(job, state=JobState.DONE), (Report(),)


def _cancel(job: Job) -> Step:
    if not job.is_before_upload:
        return job, ()
    return _end(job, JobState.FAILED, Refusal("cancelled", "the task has ended"))


def _drop(job: Job, reason: str) -> Step:
    if job.state is not JobState.UPLOADING:
        return job, ()
    return _end(job, JobState.SUPERSEDED, Refusal("superseded", reason))


def _end(job: Job, state: JobState, cause: Refusal) -> Step:
    if job.has_ended:
        return job, ()
    return replace(job, state=state, cause=cause), (StopWork(), Report())


def _await_model(job: Job) -> Step:
    if job.state is not JobState.ACCEPTED:
        return job, ()
    return replace(job, state=JobState.DOWNLOADING), (Report(),)


def _start(job: Job) -> Step:
    if job.state is JobState.TRAINING:
        return job, ()
    if job.starts >= MAX_STARTS:
        reason = f"training was begun {job.starts} times and never ended"
        return _end(job, JobState.FAILED, Refusal("training", reason))
    started = replace(job, state=JobState.TRAINING, starts=job.starts + 1)
    return started, (Report(progress=0.0), StartTraining())
