"""Whether the link is metered: bytes on it are paid for, or there are few of them a month.

The setting ``metered`` says it. ``auto`` knows modems alone: an interface of the default route
that the kernel calls a modem (``DEVTYPE=wwan``), or a point-to-point link (``ppp``). That a Wi-Fi
is a phone's hotspot cannot be seen in these files; its owner says ``yes``.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

Metered = Literal["auto", "yes", "no"]

_ROOT = Path("/")
_ROUTES = "proc/net/route"
_LOOK_S = 10.0
_DEFAULT = "00000000"
_MODEM = "DEVTYPE=wwan"
_MASK_FIELD = 7


class LinkState:
    """Tells why nothing may be sent; reads the files again now and then."""

    def __init__(
        self,
        metered: Metered,
        *,
        is_allowed: bool,
        root: Path = _ROOT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without a look.

        Args:
            metered: What the settings say of the link.
            is_allowed: Whether the owner lets updates be sent on a metered link.
            root: Where ``/proc`` and ``/sys`` are.
            clock: Seconds, never jumping.
        """
        self._metered = metered
        self._is_allowed = is_allowed
        self._root = root
        self._clock = clock
        self._next_look_s = float("-inf")
        self._why: str | None = None

    def why_not_now(self) -> str | None:
        """Return why updates may not be sent now; None: they may."""
        if self._is_allowed or self._metered == "no":
            return None
        if self._metered == "yes":
            return _waits("the settings say so")
        if self._clock() >= self._next_look_s:
            self._next_look_s = self._clock() + _LOOK_S
            modem = modem_of(self._root)
            self._why = None if modem is None else _waits(f"{modem} is a modem")
        return self._why


def modem_of(root: Path) -> str | None:
    """Return the interface of a default route if it is a modem; None: none is, or no route."""
    for line in _text(root / _ROUTES).splitlines()[1:]:
        fields = line.split()
        if len(fields) <= _MASK_FIELD or (fields[1], fields[_MASK_FIELD]) != (_DEFAULT, _DEFAULT):
            continue
        name = fields[0]
        uevent = _text(root / "sys/class/net" / name / "uevent")
        if name.startswith("ppp") or _MODEM in uevent.splitlines():
            return name
    return None


def _waits(why: str) -> str:
    return f"waits: the link is metered ({why}), and metered_uploads of the policy is off"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
