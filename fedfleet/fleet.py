"""Who is there: gateways and devices as their retained states tell."""

from dataclasses import dataclass, field

from fedfleet.client import Message
from schemas.envelope import decode_frame
from schemas.errors import WireError
from schemas.messages import DeviceState, GatewayState
from schemas.topics import Kind


@dataclass(slots=True)
class Fleet:
    """The fleet as far as it was seen; ``take`` adds to it.

    Attributes:
        gateways: Region -> state of its gateway.
        devices: (Region, device) -> state.
    """

    gateways: dict[str, GatewayState] = field(default_factory=dict)
    devices: dict[tuple[str, str], DeviceState] = field(default_factory=dict)

    def take(self, message: Message) -> None:
        """Note a state; what is none, was cleared or cannot be read changes nothing."""
        address = message.topic.address
        if message.topic.kind is not Kind.STATE or address is None or not message.payload:
            return
        try:
            frame = decode_frame(message.payload)
            if address.is_gateway:
                self.gateways[address.region] = frame.body(GatewayState)
            else:
                self.devices[address.region, address.node] = frame.body(DeviceState)
        except WireError:
            return

    def status_of(self, region: str, device: str) -> str:
        """Return ``online``, ``offline`` or, where only the gateway has noticed, ``silent``."""
        gateway = self.gateways.get(region)
        status = self.devices[region, device].status
        is_silent = status == "online" and gateway is not None and device in gateway.silent
        return "silent" if is_silent else status
