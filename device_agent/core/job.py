"""One job: one round of one task on this device, and where it stands."""

from dataclasses import dataclass
from enum import Enum


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
