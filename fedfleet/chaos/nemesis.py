"""Draws faults at random from one seed: whom, what, and for how long. Pure."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fedfleet.chaos.proxy import BOTH, Way

FaultKind = Literal["kill", "stop", "cut", "hole", "delay"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
#: How often each is drawn; most trouble is a death.
_WEIGHTS: dict[FaultKind, int] = {"kill": 62, "stop": 12, "cut": 12, "hole": 10, "delay": 4}
#: Shortest and longest time until it is over, seconds.
_SECONDS: dict[FaultKind, tuple[float, float]] = {
    "kill": (0.05, 1.0),
    "stop": (0.2, 4.0),
    "cut": (0.1, 3.0),
    "hole": (0.5, 6.0),
    "delay": (2.0, 8.0),
}
_DELAY_S = (0.02, 0.3)
#: So many are hurt at the same time, at most, so that rounds go on at all.
MAX_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens to one victim.

    Attributes:
        kind: ``kill`` and start again, ``stop`` and continue, ``cut`` all connections, a ``hole``
            that swallows what is sent, ``delay`` of each piece.
        victim: A process, or a door (``cut``, ``hole`` and ``delay``).
        seconds: Until it is over.
        ways: For a hole, which directions.
        drops: For a hole, whether connections break off at its end.
        delay_s: For a delay, how long each piece waits.
    """

    kind: FaultKind
    victim: str
    seconds: float
    ways: tuple[Way, ...] = ()
    drops: bool = False
    delay_s: float = 0.0


class Nemesis:
    """A sequence of faults that depends on the seed and on who can be hurt just then."""

    def __init__(
        self, seed: int, processes: Sequence[str], doors: Sequence[str], pace_s: float
    ) -> None:
        """Begin.

        Args:
            seed: Decides all that follows.
            processes: Who can be killed and stopped.
            doors: What can be cut, held up and slowed down.
            pace_s: Mean time between two faults.
        """
        self._rng = random.Random(seed)  # noqa: S311 - to be repeated, not secret
        self._processes = tuple(processes)
        self._doors = tuple(doors)
        self._pace_s = pace_s

    def wait_s(self) -> float:
        """Return the time until the next fault."""
        return self._rng.expovariate(1.0 / self._pace_s)

    def fault(self, hurt: Collection[str]) -> Fault | None:
        """Return the next fault; None when enough are hurt already.

        Args:
            hurt: Processes and doors to which something is happening now.
        """
        if len(hurt) >= MAX_AT_ONCE:
            return None
        kind = self._rng.choices(KINDS, [_WEIGHTS[kind] for kind in KINDS])[0]
        victims = self._processes if kind in ("kill", "stop") else self._doors
        free = [victim for victim in victims if victim not in hurt]
        victim, seconds = self._rng.choice(free), self._rng.uniform(*_SECONDS[kind])
        if kind == "hole":
            ways = self._rng.choice((BOTH, BOTH[:1], BOTH[1:]))
            return Fault(kind, victim, seconds, ways, drops=self._rng.random() < 0.5)  # noqa: PLR2004
        if kind == "delay":
            return Fault(kind, victim, seconds, delay_s=self._rng.uniform(*_DELAY_S))
        return Fault(kind, victim, seconds)
