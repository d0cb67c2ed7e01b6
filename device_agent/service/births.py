"""The device's word for itself: birth, death, heartbeat."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from device_agent.service.ports import Machine
from device_agent.service.wire import Wire
from schemas.messages import Capabilities, DataDescription, DeviceState, Heartbeat
from schemas.topics import Kind
from transport.events import Outgoing
from transport.parking import ParkedSummary, nothing_parked

_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Profile:
    """What the device tells of itself in its birth.

    Attributes:
        name: Name of its firmware profile.
        capabilities: What it can carry.
        data: Its data sources; no example of theirs.
        versions: Component -> version.
    """

    name: str
    capabilities: Capabilities
    data: tuple[DataDescription, ...]
    versions: dict[str, str]


class Births:
    """Makes births, deaths and heartbeats, these with jitter, so that no herd forms.

    Attributes:
        next_heartbeat_s: When the next heartbeat is due, unix seconds.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by the composition root
        self,
        wire: Wire,
        profile: Profile,
        machine: Machine,
        rng: np.random.Generator,
        heartbeat_s: float,
        *,
        parked: Callable[[], ParkedSummary] = nothing_parked,
    ) -> None:
        self.next_heartbeat_s = 0.0
        self._wire = wire
        self._profile = profile
        self._machine = machine
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self._parked = parked
        self._told_parked = 0

    def birth(self, now_s: float) -> Outgoing:
        """Return the birth; the next heartbeat is counted from here."""
        self._plan_heartbeat(now_s)
        profile = self._profile
        self._told_parked = self._parked().count
        state = DeviceState(
            status="online",
            boot=self._wire.frames.boot,
            profile=profile.name,
            capabilities=profile.capabilities,
            data=profile.data,
            versions=profile.versions,
            parked=self._told_parked,
        )
        return self._wire.message(Kind.STATE, state)

    def death(self, why: str) -> Outgoing:
        """Return the death, with the boot of the birth: as a Will, or as a farewell."""
        state = DeviceState(
            status="offline",
            boot=self._wire.frames.boot,
            why=why,
            profile=self._profile.name,
        )
        return self._wire.message(Kind.STATE, state)

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the heartbeat when its time has come; the birth, should it tell more by now."""
        if now_s < self.next_heartbeat_s:
            return []
        if self._parked().count != self._told_parked:
            return [self.birth(now_s)]
        self._plan_heartbeat(now_s)
        vitals = self._machine.vitals()
        beat = Heartbeat(
            load=vitals.load,
            memory_free_bytes=vitals.memory_free_bytes,
            temperature_c=vitals.temperature_c,
        )
        return [self._wire.message(Kind.HEARTBEAT, beat)]

    def _plan_heartbeat(self, now_s: float) -> None:
        factor = self._rng.uniform(1.0 - _JITTER, 1.0 + _JITTER)
        self.next_heartbeat_s = now_s + self._heartbeat_s * factor
