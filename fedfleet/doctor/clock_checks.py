"""This machine's clock, bounded by what was seen of other clocks.

A retained message tells only that its time has passed. A clock that is behind is found by it; one
that is ahead is found by a hardware clock, by a word that has just been said, or by the broker's
uptime: central says that it is there whenever its broker starts.
"""

import ctypes
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedfleet.doctor.finding import Finding, failed, ok, warning
from schemas.envelope import decode_frame
from schemas.errors import WireError
from schemas.topics import GATEWAY_LEVEL, Kind, Topic
from transport.probe_answers import Heard

_CHECK = "clock"
#: Messages travel, and clocks of a healthy fleet differ a little.
_TOLERANCE_S = 120.0
_DAY_S, _HOUR_S = 86_400.0, 3600.0
#: A hardware clock may keep local time.
_ZONES_S = 15 * _HOUR_S
_HARDWARE_CLOCK = Path("/sys/class/rtc/rtc0/since_epoch")
#: adjtimex(2): the clock is not synchronized. The buffer is larger than any struct timex.
_TIME_ERROR, _TIMEX_BYTES = 5, 512
#: Sources of frames whose word on the time counts.
_TRUSTED = ("central", f"{GATEWAY_LEVEL}/")
#: So long after its broker's start, central has surely come back and said so.
_SETTLED_S = 60.0
UPTIME_TOPIC = "$SYS/broker/uptime"
CENTRAL_TOPIC = Topic(Kind.CENTRAL_STATE).name


@dataclass(frozen=True, slots=True)
class Sighting:
    """What another clock tells of the time: it is between two moments, as far as known.

    Attributes:
        source: Whose clock.
        earliest_s: Unix seconds; None: not bounded.
        latest_s: Unix seconds; None: not bounded.
    """

    source: str
    earliest_s: float | None = None
    latest_s: float | None = None

    def offset_s(self, now_s: float) -> float:
        """Return by how much ``now_s`` is ahead at least, negative when behind; 0: it fits."""
        if self.earliest_s is not None and now_s < self.earliest_s - _TOLERANCE_S:
            return now_s - self.earliest_s
        if self.latest_s is not None and now_s > self.latest_s + _TOLERANCE_S:
            return now_s - self.latest_s
        return 0.0


def judge_clock(now_s: float, sightings: Sequence[Sighting], *, is_synchronized: bool) -> Finding:
    """Tell whether a clock fits all that was seen of others."""
    offsets = [(one.offset_s(now_s), one.source) for one in sightings]
    offset_s, source = max(offsets, key=lambda one: abs(one[0]), default=(0.0, ""))
    if offset_s:
        where = "ahead of" if offset_s > 0 else "behind"
        seen = f"{_span(offset_s)} or more {where} {source}"
        if is_synchronized:
            advice = f"the kernel calls this clock synchronized: look at the clock of {source}"
        else:
            advice = "set it and keep it so: timedatectl set-ntp true, or chrony"
        return failed(_CHECK, seen, advice)
    if is_synchronized:
        return ok(_CHECK, "the kernel calls it synchronized")
    names = ", ".join(dict.fromkeys(one.source for one in sightings)) or "nothing"
    if any(one.latest_s is not None for one in sightings) and any(
        one.earliest_s is not None for one in sightings
    ):
        return ok(_CHECK, f"not synchronized, and agrees with {names}")
    seen = f"not synchronized; not behind {names}, but nothing tells whether it is ahead"
    return warning(_CHECK, seen, "let timesyncd or chrony keep it: timedatectl set-ntp true")


def of_messages(heard: Iterable[Heard]) -> list[Sighting]:
    """Return what central and gateways said of the time."""
    messages = {one.topic_name: one for one in heard}
    found = [sighting for one in messages.values() if (sighting := _of_message(one))]
    central_s = _central_online_s(messages.get(CENTRAL_TOPIC))
    uptime_s = _uptime_s(messages.get(UPTIME_TOPIC))
    if central_s is not None and uptime_s is not None and uptime_s >= _SETTLED_S:
        source = "central (or central has been away since its broker's start)"
        found.append(Sighting(source, latest_s=central_s + uptime_s))
    return found


def of_files(folders: Iterable[Path]) -> list[Sighting]:
    """Return the newest time of a file in some folders: it has passed."""
    times = [when_s for folder in folders for when_s in _times(folder)]
    return [Sighting("the newest file here", earliest_s=max(times))] if times else []


def of_hardware(path: Path = _HARDWARE_CLOCK) -> list[Sighting]:
    """Return what the hardware clock tells; it may keep the time of any zone."""
    try:
        now_s = float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    return [Sighting("the hardware clock", now_s - _ZONES_S, now_s + _ZONES_S)]


def is_synchronized() -> bool:
    """Tell whether the kernel believes that something keeps the clock right (adjtimex(2))."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return 0 <= state < _TIME_ERROR


def _times(folder: Path) -> list[float]:
    try:
        return [path.lstat().st_mtime for path in folder.iterdir()]
    except OSError:
        return []


def _of_message(message: Heard) -> Sighting | None:
    said_s = _said_s(message)
    if said_s is None:
        return None
    is_central = message.topic_name == CENTRAL_TOPIC
    source = "central" if is_central else f"the sender of {message.topic_name}"
    return Sighting(source, said_s, None if message.retained else said_s)


def _said_s(message: Heard) -> float | None:
    if message.topic_name == CENTRAL_TOPIC:
        return _number(_object(message.payload).get("ts"))
    try:
        header = decode_frame(message.payload).header
    except WireError:
        return None
    # Deadlines are central's, and a gateway serves many; a device's clock may be anything.
    return header.ts if header.src.startswith(_TRUSTED) else None


def _central_online_s(message: Heard | None) -> float | None:
    if message is None:
        return None
    state = _object(message.payload)
    return _number(state.get("ts")) if state.get("status") == "online" else None


def _uptime_s(message: Heard | None) -> float | None:
    """Read Mosquitto's ``123 seconds``."""
    words = message.payload.split() if message else []
    return float(words[0]) if words and words[0].isdigit() else None


def _object(payload: bytes) -> dict[str, object]:
    try:
        found = json.loads(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _span(seconds: float) -> str:
    seconds = abs(seconds)
    if seconds >= 0.95 * _DAY_S:
        return f"{seconds / _DAY_S:.1f} days"
    return f"{seconds / _HOUR_S:.1f} hours" if seconds >= _HOUR_S else f"{seconds:.0f} s"
