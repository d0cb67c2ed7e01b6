"""Topics on which ``fedfleet doctor`` writes to itself: what comes back proves a right.

They are no kind of the protocol. They lie where a program's own topics lie, so that an access
list treats them alike; a program that hears one counts it as refused and goes on.
"""

from dataclasses import dataclass

from schemas.ids import RESERVED, is_id
from schemas.topics import GATEWAY_LEVEL, PREFIX, Address, TopicError

#: Takes a device's place in a region, or a region's place at central: no id may be like it.
_NOBODY = "ctl"


@dataclass(frozen=True, slots=True)
class ProbePaths:
    """Where one session of a program proves its rights.

    Attributes:
        publishes: Prefix of a topic that lies where the program publishes.
        listens: Prefix of a topic that lies where the program listens.
    """

    publishes: str
    listens: str


def of_device(region: str, device: str) -> ProbePaths:
    """Return the paths of one device.

    Raises:
        TopicError: A level is not an id or is reserved.
    """
    own = Address(region, device).prefix
    return ProbePaths(publishes=f"{own}/up/probe", listens=f"{own}/dn/probe")


def of_uplink(region: str) -> ProbePaths:
    """Return the paths of a gateway's session towards central.

    Raises:
        TopicError: The region is not an id or is reserved.
    """
    own = Address.of_gateway(region).prefix
    return ProbePaths(publishes=f"{own}/up/probe", listens=f"{own}/dn/probe")


def of_downlink(region: str) -> ProbePaths:
    """Return the paths of a gateway's session towards its devices; no device hears them.

    Raises:
        TopicError: The region is not an id or is reserved.
    """
    if not is_id(region) or region in RESERVED:
        message = f"region {region!r} is not an id or is reserved"
        raise TopicError(message)
    nobody = f"{PREFIX}/{region}/{_NOBODY}"
    return ProbePaths(publishes=f"{nobody}/dn/probe", listens=f"{nobody}/up/probe")


def of_central() -> ProbePaths:
    """Return the paths of central; no gateway hears them."""
    nobody = f"{PREFIX}/{GATEWAY_LEVEL}/{_NOBODY}"
    return ProbePaths(publishes=f"{nobody}/dn/probe", listens=f"{nobody}/up/probe")
