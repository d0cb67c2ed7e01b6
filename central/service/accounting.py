"""What each accepted update took on the wire: its own packets, and what its device tells."""

from dataclasses import dataclass

from central.core.traffic import Counted, Share, attribute
from schemas.envelope import Frame
from schemas.messages import UpdateManifest
from schemas.topics import Address, Kind, Topic
from transport.traffic import publish_bytes

#: Lengths of a frame's header and signature.
_LENGTHS_BYTES = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What is known of an update's bytes when it is offered.

    Attributes:
        told: The device's counters; None: it does not count, then the own packets stand alone.
        own_bytes: Manifest and chunks as the packets in which the device publishes them.
    """

    told: Counted | None
    own_bytes: int


def cost_of(region: str, offer: UpdateManifest, frame: Frame) -> Cost:
    """Return what an update that is offered takes on the wire."""
    told = None
    if offer.wire_bytes is not None:
        told = Counted(frame.header.boot, *offer.wire_bytes)
    device = Address(region, offer.device)
    manifest = Topic(Kind.MANIFEST, device, xfer=offer.xfer).name
    frame_bytes = len(frame.header_bytes) + len(frame.signature) + len(frame.tail)
    own_bytes = publish_bytes(manifest, frame_bytes + _LENGTHS_BYTES)
    return Cost(told, own_bytes + _chunks_bytes(device, offer))


def share_of(cost: Cost, known: Counted | None) -> tuple[Share, Counted | None]:
    """Return an update's share of its device's bytes, and what to store once it is accepted.

    Args:
        cost: Of the update.
        known: Up to where the device's bytes are counted.
    """
    if cost.told is None:
        return Share(cost.own_bytes, 0), known
    return attribute(known, cost.told, cost.own_bytes)


def _chunks_bytes(device: Address, offer: UpdateManifest) -> int:
    manifest = offer.object
    if manifest.inline:
        return 0
    sizes = [manifest.chunk_bytes] * manifest.chunks
    sizes[-1] = manifest.size - manifest.chunk_bytes * (manifest.chunks - 1)
    names = (Topic(Kind.CHUNK, device, xfer=offer.xfer, k=k).name for k in range(manifest.chunks))
    return sum(publish_bytes(name, size) for name, size in zip(names, sizes, strict=True))
