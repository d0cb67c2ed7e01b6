"""Lets one log line of a kind through a minute, so that a flood of bad messages fills no disk."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class LogGate:
    """Admits the first line of each key, then one every ``interval_s``.

    Attributes:
        interval_s: Shortest time between two lines of one key.
    """

    interval_s: float = 60.0
    _last_s: dict[str, float] = field(default_factory=dict)
    _suppressed: dict[str, int] = field(default_factory=dict)

    def admit(self, key: str, now_s: float) -> int | None:
        """Return how many lines were held back since the last, or None to hold this one back.

        Args:
            key: Kind of line; a value of the program, never one from the network.
            now_s: Now, seconds.
        """
        last_s = self._last_s.get(key)
        if last_s is not None and now_s - last_s < self.interval_s:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return None
        self._last_s[key] = now_s
        return self._suppressed.pop(key, 0)
