"""How a gateway and its region stand at one moment, in numbers that any thread may read."""

from dataclasses import dataclass

from regional_gateway.service.custody import Load
from regional_gateway.service.parts import Parts


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand.

    Attributes:
        devices: ``online``, ``silent`` or ``offline``, by id.
        custody: What is held for central.
        assignments: Rounds that the region works on.
        transfers: Large updates that are offered here and not in custody.
        relayed: Frames of devices that wait for the way to central.
        parked: Messages that could not be handled.
    """

    devices: dict[str, str]
    custody: Load
    assignments: int
    transfers: int
    relayed: int
    parked: int


def take_standing(parts: Parts, now_s: float) -> Standing:
    """Look at the tables; call it on the loop's thread, outside of a transaction.

    Args:
        parts: The gateway's.
        now_s: Now, unix seconds.
    """
    return Standing(
        devices=parts.devices.whereabouts(now_s),
        custody=parts.custody.load(now_s),
        assignments=len(parts.assignments.keys()),
        transfers=parts.pulls.count(),
        relayed=parts.relay.count(),
        parked=parts.devices.parked(),
    )
