"""The life of one job: one round of one task on this device.

::

    accepted ----> downloading ----> training ----> uploading ----> done
        |               |               |               |
        +---------------+---------------+               |
                        |                               |
              failed, superseded                     failed (cancelled)

``rejected`` is where a job that the device refuses starts and ends. Rules:

1. A job that ended never changes again, whatever arrives.
2. An update that is stored is uploaded: a newer round does not take it back.
3. A restart begins again before ``uploading``; training is deterministic, its bytes are the same.
4. Training that was begun ``MAX_STARTS`` times without an end is given up: it is what ends the
   program.
"""

from dataclasses import dataclass, replace
from enum import Enum

from typing_extensions import assert_never

MAX_STARTS = 5


class JobState(Enum):
    """Where a job stands; the value is what is stored."""

    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    TRAINING = "training"
    UPLOADING = "uploading"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


#: The update does not exist yet.
BEFORE_UPLOAD = frozenset({JobState.ACCEPTED, JobState.DOWNLOADING, JobState.TRAINING})
ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.REJECTED, JobState.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class JobKey:
    """One round of one task."""

    task: str
    round: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a job is not done: a stable code, and a reason for the person who asks."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        key: Task and round.
        state: Where it stands.
        cause: Why it was refused, failed or was superseded.
        starts: How often training was begun.
        xfer: Transfer id of its update, once that is stored.
    """

    key: JobKey
    state: JobState = JobState.ACCEPTED
    cause: Refusal | None = None
    starts: int = 0
    xfer: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def is_before_upload(self) -> bool:
        """Whether its update does not exist yet."""
        return self.state in BEFORE_UPLOAD


@dataclass(frozen=True, slots=True)
class ModelAwaited:
    """The global model is not here and was asked for."""


@dataclass(frozen=True, slots=True)
class ModelArrived:
    """The global model is here, whole and checked."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A share of the training is done, 0 to 1."""

    share: float


@dataclass(frozen=True, slots=True)
class UpdateStored:
    """The encoded update is on disk under this transfer id."""

    xfer: str


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """The job cannot be done."""

    cause: Refusal


@dataclass(frozen=True, slots=True)
class Receipted:
    """The update has its final receipt."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A newer round of the task is there, or nobody wants this one any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The task was cancelled from above."""


@dataclass(frozen=True, slots=True)
class AssignedAgain:
    """The same assignment came once more: whoever sent it does not know our answer."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The program began anew and found this job in its database."""


#: What matters only while the update does not exist yet.
WorkEvent = (
    ModelAwaited | ModelArrived | Progressed | UpdateStored | WorkFailed | Overtaken | Restarted
)
JobEvent = WorkEvent | Receipted | Cancelled | AssignedAgain


@dataclass(frozen=True, slots=True)
class Report:
    """Tell how far the job is.

    Attributes:
        progress: Share of the training that is done, where it is known.
    """

    progress: float | None = None


@dataclass(frozen=True, slots=True)
class FindModel:
    """Look for the global model here, else ask for it."""


@dataclass(frozen=True, slots=True)
class StartTraining:
    """Begin to train, after the commit."""


@dataclass(frozen=True, slots=True)
class StopWork:
    """Stop what runs for this job: its download or its training."""


@dataclass(frozen=True, slots=True)
class OfferAgain:
    """Offer the stored update at once."""


Instruction = Report | FindModel | StartTraining | StopWork | OfferAgain
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
        case Cancelled():
            return _end(job, JobState.FAILED, Refusal("cancelled", "the task was cancelled"))
        case _:
            return _work(job, event) if job.is_before_upload else (job, ())


def _work(job: Job, event: WorkEvent) -> Step:
    step: Step = (job, ())
    match event:
        case Restarted():
            step = replace(job, state=JobState.ACCEPTED), (FindModel(),)
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


def _progress(job: Job, share: float) -> Step:
    return job, (Report(share),) if job.state is JobState.TRAINING else ()


def _receipted(job: Job) -> Step:
    if job.state is not JobState.UPLOADING:
        return job, ()
    return replace(job, state=JobState.DONE), (Report(),)


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
