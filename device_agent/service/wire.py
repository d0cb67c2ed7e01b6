"""Writes this device's messages: each as a frame, under its own subtree."""

from device_agent.core.job import Job, JobState
from schemas.base import WireMessage
from schemas.messages import JobStatus
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.frames import FrameWriter

_MAX_REASON_CHARACTERS = 500


class Wire:
    """The device's way up.

    Attributes:
        address: The device's own subtree.
        frames: Numbers and identifies its frames.
    """

    def __init__(self, address: Address, frames: FrameWriter) -> None:
        self.address = address
        self.frames = frames

    def message(self, kind: Kind, body: WireMessage) -> Outgoing:
        """Return a message that is about no particular job."""
        return Outgoing(Topic(kind, self.address), self.frames.frame(body))

    def status(self, job: Job, progress: float | None, why: str | None = None) -> Outgoing:
        """Return the message that tells how far a job is; ``why``: a reason if it has no cause."""
        key, cause = job.key, job.cause
        reason = cause.reason if cause else why
        status = JobStatus(
            task=key.task,
            round=key.round,
            state="failed" if job.state is JobState.SUPERSEDED else job.state.value,
            code=cause.code if cause else None,
            reason=reason[:_MAX_REASON_CHARACTERS] if reason else None,
            progress=progress,
        )
        frame = self.frames.frame(status, task=key.task, round_number=key.round)
        return Outgoing(Topic(Kind.JOB_STATUS, self.address, task=key.task), frame)
