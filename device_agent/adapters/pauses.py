"""Holds the training thread up between two steps while the device must rest."""

import threading
import time
from collections.abc import Callable

from device_agent.core.pauses import Condition, Pause, is_limited, look
from device_agent.service.ports import Vitals
from schemas.profiles import Limits

#: Sensors are read at most this often.
LOOK_S = 2.0


class Pauses:
    """Looks at the sensors now and then; used by the training thread alone.

    A pause is between two steps, so it changes nothing of what training gives.
    """

    def __init__(
        self,
        limits: Limits,
        vitals: Callable[[], Vitals],
        clock: Callable[[], float] = time.monotonic,
        look_s: float = LOOK_S,
    ) -> None:
        """Begin without a pause.

        Args:
            limits: The device's.
            vitals: Reads its sensors.
            clock: Seconds, never jumping.
            look_s: How often sensors are read at most, seconds.
        """
        self._limits = limits
        self._vitals = vitals
        self._clock = clock
        self._look_s = look_s
        self._next_look_s = float("-inf")
        self._paused_s = 0.0

    def working_s(self) -> float:
        """Return the clock without what was spent in pauses: how long a job took is not rest."""
        return self._clock() - self._paused_s

    def hold(self, stop: threading.Event, tell: Callable[[str | None], None]) -> None:
        """Return at once, or when the device may go on, or when the work is to be stopped.

        Args:
            stop: Set when the work is to be stopped.
            tell: Called with the reason when a pause begins, and with None when it ends.
        """
        began_s = self._clock()
        if not is_limited(self._limits) or began_s < self._next_look_s:
            return
        pause = self._look(None)
        if pause is not None:
            tell(pause.reason)
            self._wait(pause, stop)
            self._paused_s += self._clock() - began_s
            tell(None)
        self._next_look_s = self._clock() + self._look_s

    def _wait(self, pause: Pause, stop: threading.Event) -> None:
        held: Pause | None = pause
        while held is not None and not stop.wait(self._look_s):
            held = self._look(held)

    def _look(self, before: Pause | None) -> Pause | None:
        now = self._vitals()
        condition = Condition(now.temperature_c, now.battery_percent, now.is_plugged)
        return look(self._limits, condition, before)
