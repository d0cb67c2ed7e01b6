"""One heap of events and one seeded generator: all that happens in a simulated world, in order."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

Action = Callable[[], None]


class SimulatedCrashError(BaseException):
    """The program that runs is killed here: nothing may catch it as a fault of its own."""


@dataclass(slots=True)
class Trace:
    """What happened, line by line; only kept when somebody wants to read or to compare it."""

    is_kept: bool = False
    lines: list[str] = field(default_factory=list)

    def note(self, now_s: float, who: str, text: str) -> None:
        if self.is_kept:
            self.lines.append(f"{now_s:10.3f}  {who:<12} {text}")

    def digest(self) -> str:
        return sha256("\n".join(self.lines).encode()).hexdigest()


class Clockwork:
    """Time passes from event to event; two of the same moment happen in the order of planning."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.now_s = 0.0
        self.rng = random.Random(seed)
        self.trace = Trace(keep_trace)
        self.events = 0
        self._heap: list[tuple[float, int, Action]] = []
        self._planned = 0

    def after(self, delay_s: float, action: Action) -> None:
        self._planned += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._planned, action))

    def step(self) -> bool:
        """Let the next event happen; False when there is none."""
        if not self._heap:
            return False
        at_s, _, action = heapq.heappop(self._heap)
        self.now_s = max(self.now_s, at_s)
        self.events += 1
        action()
        return True

    def chance(self, probability: float) -> bool:
        return probability > 0.0 and self.rng.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def note(self, who: str, text: str) -> None:
        self.trace.note(self.now_s, who, text)
