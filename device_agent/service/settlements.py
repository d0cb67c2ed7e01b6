"""What became of this device's updates once their rounds had ended."""

from collections.abc import Iterable

from device_agent.service.records import JobStore
from schemas.messages import Settlement
from transport.failpoints import failpoint


def settle(store: JobStore, device: str, settlements: Iterable[Settlement]) -> None:
    """Record for each job of ``device`` whether its update was counted or discarded."""
    for one in settlements:
        if device in one.counted:
            store.settle(one.task, one.round, "counted")
            failpoint("device.settlement.saved")
        elif device in one.discarded:
            store.settle(one.task, one.round, "discarded")
