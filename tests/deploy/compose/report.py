"""What the run tells: lines with the seconds since it began, and figures for the summary."""

import json
import sys
import time
from dataclasses import dataclass, field


class Skip(Exception):  # noqa: N818 - not an error
    """Docker cannot run here; the text says why and what would help."""


class Failure(Exception):  # noqa: N818 - named for what pytest would call it
    """Something does not hold."""


@dataclass
class Report:
    """One run's lines and figures."""

    began_s: float = field(default_factory=time.monotonic)
    figures: dict[str, object] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began_s

    def say(self, text: str) -> None:
        """Print one line with the time."""
        sys.stdout.write(f"[{self.elapsed_s:4.0f}s] {text}\n")
        sys.stdout.flush()

    def note(self, name: str, value: object) -> None:
        """Keep one figure for the summary."""
        self.figures[name] = value

    def summary(self, result: str) -> str:
        """Return the summary, one line of JSON."""
        whole = {"result": result, "seconds": round(self.elapsed_s), **self.figures}
        return json.dumps(whole)


def until(condition, what, timeout_s, pause_s=0.3):
    """Return the first true value of ``condition()``.

    Raises:
        Failure: There was none in time.
    """
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            message = f"not within {timeout_s} s: {what}"
            raise Failure(message)
        time.sleep(pause_s)
