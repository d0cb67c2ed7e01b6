"""Writes this device's messages: each as a frame, under its own subtree."""

from schemas.base import WireMessage
from schemas.messages import JobStatus
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.frames import FrameWriter


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

    def status(self, status: JobStatus) -> Outgoing:
        """Return the message that tells how far a job is."""
        frame = self.frames.frame(status, task=status.task, round_number=status.round)
        return Outgoing(Topic(Kind.JOB_STATUS, self.address, task=status.task), frame)
