"""One frame as it passed the broker: what its header says, unchecked. Pure."""

import json
import struct
from dataclasses import dataclass

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One frame as it passed.

    Attributes:
        at_s: When the observer had it, unix seconds.
        made_s: When its sender made it, by the header, unix seconds.
        topic: Its topic name.
        type: The frame's type.
        src: Who made it.
        round: Round that it is about, if it says one.
        size: Bytes of the message.
        xfer: Transfer that it is about, if any.
    """

    at_s: float
    made_s: float
    topic: str
    type: str
    src: str
    round: int | None
    size: int
    xfer: str | None = None


def read(topic: str, payload: bytes, at_s: float) -> Sighting | None:
    """Return what a message's header says, unchecked; None when it is no frame."""
    if len(payload) < _LENGTH.size or payload[:1] == b"{":
        return None
    (length,) = _LENGTH.unpack_from(payload)
    try:
        header = json.loads(payload[_LENGTH.size : _LENGTH.size + length])
        body = header["body"]
        number = header.get("round", body.get("round"))
        return Sighting(
            at_s,
            header["ts"],
            topic,
            header["type"],
            header["src"],
            number,
            len(payload),
            body.get("xfer"),
        )
    except (ValueError, KeyError, AttributeError):
        return None
