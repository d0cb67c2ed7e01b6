"""The gateway's two ways out: up to central, and down to the devices of its region."""

from dataclasses import dataclass

from schemas.base import WireMessage
from schemas.topics import EVERYONE_LEVEL, Address, Kind, Topic
from transport.events import Outgoing
from transport.frames import FrameWriter

UPLINK = "uplink"
DOWNLINK = "downlink"
CENTRAL = "central"


def gateway_source(region: str) -> str:
    """Return the ``src`` of a region's gateway."""
    return f"gw/{region}"


@dataclass(frozen=True, slots=True)
class Links:
    """Makes messages for both sessions; keeps nothing.

    Attributes:
        region: The region's id.
        frames: Writes the gateway's own frames.
    """

    region: str
    frames: FrameWriter

    @property
    def gateway(self) -> Address:
        """The subtree between central and this gateway."""
        return Address.of_gateway(self.region)

    def device(self, device: str) -> Address:
        """Return the subtree of one device, or of all of them for ``"all"``."""
        if device == EVERYONE_LEVEL:
            return Address.of_everyone(self.region)
        return Address(self.region, device)

    def up(self, kind: Kind, payload: bytes) -> Outgoing:
        """Return a message to central."""
        return Outgoing(Topic(kind, self.gateway), payload, UPLINK)

    def up_transfer(self, kind: Kind, xfer: str, payload: bytes) -> Outgoing:
        """Return a message to central that belongs to one transfer."""
        return Outgoing(Topic(kind, self.gateway, xfer=xfer), payload, UPLINK)

    def relayed(self, device: str, payload: bytes, token: int) -> Outgoing:
        """Return a device's own frame for central, as it came."""
        topic = Topic(Kind.RELAYED, self.gateway, device=device)
        return Outgoing(topic, payload, UPLINK, token=token)

    def down(self, device: str, kind: Kind, payload: bytes) -> Outgoing:
        """Return a message to one device, or to all for ``"all"``."""
        return Outgoing(Topic(kind, self.device(device)), payload, DOWNLINK)

    def down_transfer(self, device: str, kind: Kind, xfer: str, payload: bytes) -> Outgoing:
        """Return a message to one device that belongs to one transfer."""
        return Outgoing(Topic(kind, self.device(device), xfer=xfer), payload, DOWNLINK)

    def tell(
        self, device: str, body: WireMessage, kind: Kind, corr: str | None = None
    ) -> Outgoing:
        """Return the gateway's own word to one device."""
        return self.down(device, kind, self.frames.frame(body, aud=device, corr=corr))
