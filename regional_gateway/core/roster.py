"""Who is in the region: known, online or silent, by the order of (boot, seq).

Rules:

- A state with an older boot than the newest known one is never believed. A birth is refused, so
  that the device adopts a newer boot; a death is ignored, since it is the Will of a past life.
- Within one boot a birth needs a newer seq, so that a repeated message changes nothing. A death
  needs none: the broker publishes the Will with the seq of the moment of connecting.
- Any message is a sign of life; it does not make an offline device online, but asks for its birth.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of one device.

    Attributes:
        device: Its id.
        boot: The newest boot that one of its states carried.
        seq: The newest seq of a birth within that boot.
        online: What its newest state says.
        seen_s: When anything last came from it; the gateway's clock, seconds.
    """

    device: str
    boot: int
    seq: int
    online: bool
    seen_s: float


class Verdict(Enum):
    """What to do with a device's state."""

    #: It is newer than what is known: keep it, and tell central.
    NEWER = "newer"
    #: It repeats what is known, or is the death of a past life: do nothing.
    STALE = "stale"
    #: It is a birth with a boot that was used up: the device must take a newer one.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StateSeen:
    """One device's state as it arrived: status of the body, boot and seq of the frame."""

    device: str
    status: Literal["online", "offline"]
    boot: int
    seq: int


def judge(known: Presence | None, state: StateSeen) -> Verdict:
    """Return what to do with ``state``, given what is known of its device."""
    if known is None or state.boot > known.boot:
        return Verdict.NEWER
    if state.status == "offline":
        changes = state.boot == known.boot and known.online
        return Verdict.NEWER if changes else Verdict.STALE
    if state.boot < known.boot:
        return Verdict.REFUSED
    return Verdict.NEWER if state.seq > known.seq else Verdict.STALE


def adopt(known: Presence | None, state: StateSeen, now_s: float) -> Presence:
    """Return the device's presence after a state that was judged newer."""
    same_life = known is not None and known.boot == state.boot
    seq = max(state.seq, known.seq) if known is not None and same_life else state.seq
    return Presence(state.device, state.boot, seq, state.status == "online", now_s)


def touched(known: Presence, now_s: float) -> Presence:
    """Return the presence after any message of the device."""
    seen_s = max(known.seen_s, now_s)
    return Presence(known.device, known.boot, known.seq, known.online, seen_s)


def lacks_birth(known: Presence | None, boot: int) -> bool:
    """Tell whether a message with ``boot`` shows that the device's newest birth was missed."""
    return known is None or (not known.online and boot >= known.boot) or boot > known.boot


def is_silent(presence: Presence, now_s: float, silent_after_s: float) -> bool:
    """Tell whether a device that should be online gave no sign of life for too long."""
    return presence.online and now_s - presence.seen_s >= silent_after_s


def silent(presences: Iterable[Presence], now_s: float, silent_after_s: float) -> tuple[str, ...]:
    """Return the ids of the silent devices, sorted."""
    return tuple(sorted(p.device for p in presences if is_silent(p, now_s, silent_after_s)))


def online(presences: Iterable[Presence], now_s: float, silent_after_s: float) -> frozenset[str]:
    """Return the ids of the devices that are online and not silent."""
    return frozenset(
        p.device for p in presences if p.online and not is_silent(p, now_s, silent_after_s)
    )
