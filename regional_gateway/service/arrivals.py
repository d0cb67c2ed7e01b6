"""Messages from central and from devices, each to the use case that it belongs to.

What a message says of its sender is believed only as far as its topic agrees.
"""

from regional_gateway.service.links import CENTRAL
from regional_gateway.service.parts import Parts
from schemas.envelope import Frame, decode_frame
from schemas.errors import FrameError, IdentityError
from schemas.messages import Assignment, ControlNote, Get, Need, NoJob, Receipt
from schemas.topics import Kind, Topic, TopicError
from transport.events import Outgoing
from transport.failpoints import failpoint


class FromCentral:
    """What arrives on the uplink, in the gateway's own subtree."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_message(self, topic: Topic, payload: bytes, now_s: float) -> list[Outgoing]:
        """Handle one message.

        Raises:
            IdentityError: Its sender is not central.
            WireError: It breaks the contract otherwise.
        """
        if topic.kind is Kind.BLOCK and topic.sha16 is not None and topic.k is not None:
            return self._parts.models.on_block(topic.sha16, topic.k, payload, now_s)
        frame = _frame_of(payload, CENTRAL)
        match topic:
            case Topic(kind=Kind.TASK):
                return self._on_task(frame, now_s)
            case Topic(kind=Kind.RECEIPT, xfer=str(xfer)):
                return self._on_receipt(xfer, frame, now_s)
            case Topic(kind=Kind.NEED):
                return self._parts.pulls.on_need(frame.body(Need), now_s)
            case Topic(kind=Kind.CONTROL):
                return self._on_control(frame, now_s)
            case _:
                message = f"topic {topic.name!r} is not sent by central"
                raise TopicError(message)

    def _on_task(self, frame: Frame, now_s: float) -> list[Outgoing]:
        if frame.header.type == Assignment.TYPE:
            return self._parts.assignments.on_assignment(frame, now_s)
        if frame.header.type == NoJob.TYPE:
            self._parts.uplink.on_no_job(frame, now_s)
        return []

    def _on_receipt(self, xfer: str, frame: Frame, now_s: float) -> list[Outgoing]:
        outgoing = self._parts.custody.on_receipt(xfer, frame.body(Receipt), frame, now_s)
        if outgoing:
            self._parts.pulls.on_end(xfer)
        return outgoing

    def _on_control(self, frame: Frame, now_s: float) -> list[Outgoing]:
        note = frame.body(ControlNote)
        if note.action == "cancel" and note.task is not None:
            return self._parts.assignments.cancel(note.task, frame.encode())
        if note.action == "rebirth":
            if note.boot is not None:
                self._adopt_boot(note.boot)
            return self._parts.uplink.announce(now_s)
        return []

    def _adopt_boot(self, newest: int) -> None:
        parts = self._parts
        if newest >= parts.links.frames.boot:
            parts.links.frames.boot = parts.adopt_boot(newest)
            failpoint("gateway.boot.adopted")
            for action in parts.on_boot:
                parts.deferred.add(action)


class FromDevices:
    """What arrives on the downlink, in a device's subtree."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def on_message(
        self, topic: Topic, device: str, payload: bytes, now_s: float
    ) -> list[Outgoing]:
        """Handle one message of one device.

        Raises:
            IdentityError: Its sender is not the device whose subtree it came in.
            WireError: It breaks the contract otherwise.
        """
        match topic:
            case Topic(kind=Kind.CHUNK, xfer=str(xfer), k=int(k)):
                self._parts.devices.touch(device, now_s)
                return self._parts.pulls.on_chunk(device, xfer, k, payload, now_s)
            case Topic(kind=Kind.MANIFEST, xfer=str(xfer)):
                return self._on_manifest(device, xfer, decode_frame(payload), now_s)
            case Topic(kind=Kind.STATE):
                return self._parts.devices.on_state(device, _word_of(payload, device), now_s)
            case _:
                return self._on_word(topic, device, _word_of(payload, device), now_s)

    def _on_manifest(self, device: str, xfer: str, frame: Frame, now_s: float) -> list[Outgoing]:
        outgoing = self._parts.custody.on_manifest(device, xfer, frame, now_s)
        if frame.header.src != device:
            return outgoing
        outgoing += self._parts.pulls.on_offer(xfer, now_s)
        boot = frame.header.boot
        return outgoing + self._parts.devices.on_sign_of_life(device, boot, now_s)

    def _on_word(self, topic: Topic, device: str, frame: Frame, now_s: float) -> list[Outgoing]:
        outgoing = self._parts.devices.on_sign_of_life(device, frame.header.boot, now_s)
        match topic:
            case Topic(kind=Kind.NEXT):
                outgoing += self._parts.assignments.on_next(device, frame)
            case Topic(kind=Kind.GET):
                outgoing += self._parts.models.on_get(device, frame.body(Get), now_s)
            case Topic(kind=Kind.JOB_STATUS, task=str(task)):
                self._parts.statuses.on_status(device, task, frame, now_s)
            case _:
                pass  # a heartbeat says nothing but that the device lives
        return outgoing


def _word_of(payload: bytes, device: str) -> Frame:
    """Return a device's frame that is kept or passed on, and so must be small: without a tail."""
    frame = _frame_of(payload, device)
    if frame.tail:
        message = f"tail: {len(frame.tail)} bytes, a {frame.header.type} has none"
        raise FrameError(message)
    return frame


def _frame_of(payload: bytes, sender: str) -> Frame:
    frame = decode_frame(payload)
    if frame.header.src != sender:
        raise IdentityError(sender, frame.header.src)
    return frame
