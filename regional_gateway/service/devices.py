"""The region's devices: births, deaths and signs of life, and the region's own state."""

from collections.abc import Callable
from importlib.metadata import version

from regional_gateway.core import roster
from regional_gateway.core.roster import Presence, StateSeen, Verdict
from regional_gateway.service.due import NOW_S
from regional_gateway.service.links import Links
from regional_gateway.service.ports import DeviceStore
from regional_gateway.service.relay import Relay
from schemas.envelope import Frame
from schemas.limits import MAX_COHORT
from schemas.messages import ControlNote, DeviceState, GatewayState
from schemas.topics import Kind
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.parking import ParkedSummary, nothing_parked

#: A device whose birth was missed is asked for it at most so often.
_ASK_BIRTH_EVERY_S = 30.0
#: Births come in crowds; the region's counts are published at most so often.
_PUBLISH_EVERY_S = 1.0


class Devices:
    """Who is in the region. States are rows; signs of life are kept in memory."""

    def __init__(
        self,
        store: DeviceStore,
        links: Links,
        relay: Relay,
        silent_after_s: float,
        parked: Callable[[], ParkedSummary] = nothing_parked,
    ) -> None:
        """Begin; every known device counts as just seen, so that none is called silent too early.

        Args:
            store: The rows.
            links: Makes messages.
            relay: Takes states to central.
            silent_after_s: No sign of life for so long: silent.
            parked: Asked for the messages that could not be handled.
        """
        self._parked = parked
        self._store = store
        self._links = links
        self._relay = relay
        self._silent_after_s = silent_after_s
        self._began_s: float | None = None
        self._seen_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}
        self._versions = {"fedfleet": version("fedfleet")}
        self._published: GatewayState | None = None
        self._looked_s = NOW_S

    def on_state(self, device: str, frame: Frame, now_s: float) -> list[Outgoing]:
        """Take a device's birth or death; an outdated birth is refused."""
        body = frame.body(DeviceState)
        seen = StateSeen(device, body.status, body.boot, frame.header.seq)
        known = self._store.presence(device)
        verdict = roster.judge(known, seen)
        if verdict is Verdict.NEWER:
            raw = frame.encode()
            self._store.save_device(roster.adopt(known, seen, now_s), raw)
            failpoint("gateway.device.saved")
            self._relay.put((device, None), raw)
        if body.status == "online" and verdict is not Verdict.REFUSED:
            self._seen_s[device] = now_s
        if verdict is Verdict.REFUSED and known is not None:
            return [self._rebirth(device, known.boot)]
        return []

    def on_sign_of_life(self, device: str, boot: int, now_s: float) -> list[Outgoing]:
        """Note that something came from a device; ask for its birth if that was missed."""
        self._seen_s[device] = now_s
        if not roster.lacks_birth(self._store.presence(device), boot):
            return []
        if now_s - self._asked_s.get(device, NOW_S) < _ASK_BIRTH_EVERY_S:
            return []
        self._asked_s[device] = now_s
        return [self._rebirth(device, None)]

    def touch(self, device: str, now_s: float) -> None:
        """Note a sign of life that names no boot."""
        self._seen_s[device] = now_s

    def here_and_gone(self, now_s: float) -> tuple[frozenset[str], frozenset[str]]:
        """Return who is online and not silent, and whose newest state says that it is gone."""
        presences = self._presences(now_s)
        here = roster.online(presences, now_s, self._silent_after_s)
        return here, frozenset(p.device for p in presences if not p.online)

    def whereabouts(self, now_s: float) -> dict[str, str]:
        """Return whether each known device is ``online``, ``silent`` or ``offline``."""
        presences = self._presences(now_s)
        here = roster.online(presences, now_s, self._silent_after_s)
        return {
            one.device: "offline"
            if not one.online
            else "online"
            if one.device in here
            else "silent"
            for one in presences
        }

    def parked(self) -> int:
        """Return how many messages could not be handled."""
        return self._parked().count

    def offline(self) -> frozenset[str]:
        """Return the devices whose newest state says that they are gone."""
        return frozenset(p.device for p in self._store.presences() if not p.online)

    def relay_all(self) -> None:
        """Tell central every device's state again."""
        for device in self._store.device_ids():
            frame = self._store.device_frame(device)
            if frame is not None:
                self._relay.put((device, None), frame)

    def birth(self, now_s: float) -> list[Outgoing]:
        """Return the region's state for central, whether it has changed or not."""
        return self._publish(self._state(now_s), now_s)

    def tick(self, now_s: float) -> list[Outgoing]:
        """Publish the region's state if it has changed."""
        if now_s - self._looked_s < _PUBLISH_EVERY_S:
            return []
        self._looked_s = now_s
        state = self._state(now_s)
        return [] if state == self._published else self._publish(state, now_s)

    def forget_strangers(self) -> None:
        """Forget signs of life of devices that are not known: they never told a birth, or left."""
        known = set(self._store.device_ids())
        for seen in (self._seen_s, self._asked_s):
            for device in [device for device in seen if device not in known]:
                del seen[device]

    def farewell(self, why: str) -> Outgoing:
        """Return the gateway's death: its last word, or its Will."""
        state = GatewayState(status="offline", boot=self._links.frames.boot, why=why)
        return self._links.up(Kind.STATE, self._links.frames.frame(state))

    def _state(self, now_s: float) -> GatewayState:
        presences = self._presences(now_s)
        silent = roster.silent(presences, now_s, self._silent_after_s)
        return GatewayState(
            status="online",
            boot=self._links.frames.boot,
            devices_known=len(presences),
            devices_online=len(roster.online(presences, now_s, self._silent_after_s)),
            silent=silent[:MAX_COHORT],
            versions=self._versions,
            parked=self._parked().count,
        )

    def _publish(self, state: GatewayState, now_s: float) -> list[Outgoing]:
        self._published = state
        self._looked_s = now_s
        return [self._links.up(Kind.STATE, self._links.frames.frame(state))]

    def _presences(self, now_s: float) -> list[Presence]:
        if self._began_s is None:
            self._began_s = now_s
        began_s = self._began_s
        return [
            roster.touched(p, max(began_s, self._seen_s.get(p.device, began_s)))
            for p in self._store.presences()
        ]

    def _rebirth(self, device: str, boot: int | None) -> Outgoing:
        return self._links.tell(device, ControlNote(action="rebirth", boot=boot), Kind.CONTROL)
