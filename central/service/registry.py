"""The fleet as central knows it: births, deaths and silence, told by the gateways.

A message counts only if its (boot, seq) is newer than the last: brokers replay old ones, and a
Will of an earlier life must not bury a device that is back.
"""

from collections.abc import Iterator

from central.core.selection import Candidate
from central.service.desk import Desk
from central.service.records import DeviceRecord, GatewayRecord
from schemas.envelope import Frame
from schemas.errors import IdentityError
from schemas.messages import DeviceState, GatewayState
from transport.failpoints import failpoint


class Registry:
    """Keeps the tables of devices and gateways."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def device_state(self, region: str, device: str, frame: Frame, now_s: float) -> bool | None:
        """Record a device's relayed state.

        Returns:
            True when it came online, False when it went, None when nothing changed.

        Raises:
            IdentityError: The frame is not the device's own.
        """
        if frame.header.src != device:
            raise IdentityError(device, frame.header.src)
        state = frame.body(DeviceState)
        known = self._desk.store.device(device)
        order = (state.boot, frame.header.seq)
        is_online = state.status == "online"
        if known is not None and not _is_news(known, is_online, order):
            return None
        if not is_online and known is not None:
            state = known.state.model_copy(update={"status": "offline", "boot": state.boot})
            order = max(order, (known.boot, known.seq))
        self._desk.store.save_device(DeviceRecord(device, region, *order, is_online, state, now_s))
        failpoint("central.device.saved")
        self._desk.wants_schedule = True
        if known is not None and known.is_online == is_online and known.region == region:
            return True if is_online and known.boot != state.boot else None
        return is_online

    def gateway_state(
        self, region: str, frame: Frame, now_s: float
    ) -> tuple[frozenset[str], frozenset[str], bool]:
        """Record a gateway's state.

        Returns:
            The devices that became silent, those that are heard again, and whether the gateway
            was born: it started or connected again.
        """
        nothing = (frozenset[str](), frozenset[str](), False)
        state = frame.body(GatewayState)
        known = self._desk.store.gateway(region)
        order = (state.boot, frame.header.seq)
        is_online = state.status == "online"
        if known is not None and not _is_news(known, is_online, order):
            return nothing
        if not is_online and known is not None:
            state = known.state.model_copy(update={"status": "offline"})
            order = max(order, (known.boot, known.seq))
        self._desk.store.save_gateway(GatewayRecord(region, *order, is_online, state, now_s))
        failpoint("central.gateway.saved")
        self._desk.wants_schedule = True
        before = frozenset(known.state.silent) if known else frozenset()
        after = frozenset(state.silent)
        was_online = known is not None and known.is_online and known.boot == state.boot
        silent = self._of_region(after - before, region)
        heard = self._of_region(before - after, region)
        return silent, heard, is_online and not was_online

    def is_outdated(self, region: str, frame: Frame) -> bool:
        """Tell whether a gateway's birth has an older boot than the newest that is known of it.

        Its clock was set back and its counter lost, or a broker repeats an old message.
        """
        state = frame.body(GatewayState)
        known = self._desk.store.gateway(region)
        return known is not None and state.status == "online" and state.boot < known.boot

    def lacks_birth(self, region: str, frame: Frame) -> bool:
        """Tell whether a gateway's word shows that its newest birth was missed or refused."""
        known = self._desk.store.gateway(region)
        return known is None or not known.is_online or frame.header.boot != known.boot

    def candidates(self, task: str, busy: frozenset[str]) -> Iterator[Candidate]:
        """Yield every device as a candidate for a task."""
        reachable = {
            gateway.region: frozenset(gateway.state.silent)
            for gateway in self._desk.store.gateways()
            if gateway.is_online
        }
        unwilling = self._desk.store.unwilling(task)
        for record in self._desk.store.devices():
            silent = reachable.get(record.region)
            yield Candidate(
                device=record.device,
                region=record.region,
                state=record.state,
                is_reachable=record.is_online
                and silent is not None
                and record.device not in silent,
                is_busy=record.device in busy,
                refused=unwilling.get(record.device),
            )

    def online(self) -> int:
        """Return the number of devices that can be reached now."""
        return sum(1 for c in self.candidates("", frozenset()) if c.is_reachable)

    def heard(self, device: str, frame: Frame, now_s: float) -> bool:
        """Take any newer word of a device as a sign of life; tell whether it was held for dead.

        A Will that a broker delivers late would else keep a living device out.
        """
        known = self._desk.store.device(device)
        order = (frame.header.boot, frame.header.seq)
        if known is None or known.is_online or order <= (known.boot, known.seq):
            return False
        state = known.state.model_copy(update={"status": "online", "boot": order[0]})
        self._desk.store.save_device(
            DeviceRecord(device, known.region, *order, True, state, now_s)  # noqa: FBT003
        )
        self._desk.wants_schedule = True
        return True

    def _of_region(self, devices: frozenset[str], region: str) -> frozenset[str]:
        """Leave out who has moved: in its former region it is silent for ever."""
        return frozenset(device for device in devices if self.region_of(device) == region)

    def region_of(self, device: str) -> str | None:
        """Return the region that a device was last seen in."""
        record = self._desk.store.device(device)
        return record.region if record else None


def _is_news(known: DeviceRecord | GatewayRecord, is_online: bool, order: tuple[int, int]) -> bool:  # noqa: FBT001
    """Tell whether a state is newer; a Will is written before the birth that it ends.

    A Will that is repeated late buries who is back; the same birth, told again, undoes that.
    """
    if not is_online:
        return order[0] >= known.boot
    newest = (known.boot, known.seq)
    return order > newest or (order == newest and not known.is_online)
