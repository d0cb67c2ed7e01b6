"""What to do with a device's manifest, and with central's receipt: the rules of custody.

Rules:

- Identity comes from the topic; what the message says of itself must agree.
- The transfer id is a digest of device, task, round and object: one object, one row.
- A final receipt ends a transfer for ever; it is repeated to whoever offers the object again.
- Within the quota everything well-formed is taken; central alone judges what is in it.
- A bid for a round's budget is passed on, and pulled only once central asks for the object.
- A row goes only when a final receipt names the SHA-256 that the row holds.
"""

from dataclasses import dataclass
from enum import Enum

from schemas.ids import transfer_id
from schemas.messages import Receipt, UpdateManifest

#: How long a device waits before it offers again what did not fit.
QUOTA_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Offer:
    """One manifest with all that its topic and its frame say.

    Attributes:
        manifest: The body.
        device: The device whose subtree it came in.
        xfer: The transfer id of the topic.
        src: The sender that the header names.
        tail_bytes: Length of the frame's tail.
        tail_sha256: Digest of the tail, as checked against the header.
    """

    manifest: UpdateManifest
    device: str
    xfer: str
    src: str
    tail_bytes: int
    tail_sha256: str | None


class Standing(Enum):
    """What the gateway has of a transfer already."""

    UNKNOWN = "unknown"
    #: A pull from the device is under way.
    PULLING = "pulling"
    #: It is on disk, and central has not given its final receipt.
    HELD = "held"
    #: Central's final receipt is known.
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the device no, and why; it offers again only after ``retry_after_s``."""

    code: str
    detail: str
    retry_after_s: float | None = None


class Act(Enum):
    """What to do with a manifest that is in order."""

    #: Send central's final receipt once more.
    REPEAT_FINAL = "repeat final"
    #: Say once more that it is held.
    REPEAT_HELD = "repeat held"
    #: Commit the frame with its object, then say so, and pass it on.
    TAKE = "take"
    #: Pass the manifest on at once; the object is pulled when it is time.
    OFFER = "offer"


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes in custody or promised to pulls under way, and the most that there may be."""

    used_bytes: int
    quota_bytes: int


def judge(offer: Offer, standing: Standing, space: Space) -> Act | Refuse:
    """Return what to do with one manifest."""
    if fault := find_fault(offer):
        return fault
    if standing is Standing.FINAL:
        return Act.REPEAT_FINAL
    if standing is Standing.HELD:
        return Act.REPEAT_HELD
    size = offer.manifest.object.size
    used_bytes = space.used_bytes if offer.manifest.bid is None else 0  # most are never pulled
    if standing is Standing.UNKNOWN and used_bytes + size > space.quota_bytes:
        return over_quota(size, space)
    return Act.TAKE if offer.manifest.object.inline else Act.OFFER


def find_fault(offer: Offer) -> Refuse | None:
    """Return why an offer is not in order, if it is not; the first reason found."""
    manifest = offer.manifest
    if offer.src != offer.device or manifest.device != offer.device:
        said = f"{offer.src}, its manifest of {manifest.device}"
        return Refuse("E_IDENTITY", f"device: the topic is of {offer.device}, the frame of {said}")
    if fault := manifest.object.fault():
        return Refuse("E_SCHEMA", fault)
    if manifest.bid is not None and manifest.object.inline:
        return Refuse("E_SCHEMA", "object.inline: true with a bid; what is bid for is pulled")
    expected = transfer_id(offer.device, manifest.task, manifest.round, manifest.object.sha256)
    if not offer.xfer == manifest.xfer == expected:
        return Refuse(
            "E_TRANSFER", f"xfer: {manifest.xfer} on topic {offer.xfer}, must be {expected}"
        )
    return _find_tail_fault(offer)


def _find_tail_fault(offer: Offer) -> Refuse | None:
    described = offer.manifest.object
    if offer.tail_bytes != described.tail_bytes():
        return Refuse(
            "E_SIZE", f"tail: {offer.tail_bytes} bytes, must be {described.tail_bytes()}"
        )
    if described.inline and offer.tail_sha256 != described.sha256:
        return Refuse(
            "E_DIGEST", f"sha256: the object has {offer.tail_sha256}, must be {described.sha256}"
        )
    return None


def over_quota(size: int, space: Space) -> Refuse:
    """Return the refusal of an object for which there is no room now."""
    detail = (
        f"size: {size} bytes, and {space.used_bytes} are in custody; "
        f"at most {space.quota_bytes} are allowed"
    )
    return Refuse("E_QUOTA", detail, QUOTA_RETRY_S)


def ends(receipt: Receipt, xfer: str, sha256: str) -> bool:
    """Tell whether a receipt ends the transfer of the object that ``sha256`` names."""
    return receipt.is_final and receipt.xfer == xfer and receipt.sha256 == sha256


def is_due(
    offered_s: float, now_s: float, *, wanted: bool, uplink_up: bool, after_s: float
) -> bool:
    """Tell whether a large object should now be pulled from its device.

    Args:
        offered_s: When its manifest first came.
        now_s: Now, on the same clock.
        wanted: Central has asked for chunks of it.
        uplink_up: The way to central stands; central may yet say that it needs nothing.
        after_s: How long to wait for central's word, seconds.
    """
    return wanted or not uplink_up or now_s - offered_s >= after_s
