"""Which chunks of an object to ask for next; pure.

A window of credits keeps a link busy without flooding it. It adapts as TCP does: an answer sets
the time-out to twice the last gap between answers (1 to 60 s), so that a slow link is not asked
twice; silence doubles it, and a silent counterpart is asked for one chunk only.
"""

from collections.abc import Collection
from itertools import islice

from schemas.limits import DEFAULT_CREDITS, MAX_WANT

_FIRST_TIMEOUT_S = 1.0
_MAX_TIMEOUT_S = 60.0
#: A chunk asked of a silent counterpart stops counting as in flight after this long, so that
#: many dead counterparts do not use up the receiver's budget.
_PROBE_HOLD_S = 2.0
_NEVER_S = float("-inf")


class ChunkWindow:
    """What is missing, what is in flight, and when to ask for it again."""

    def __init__(
        self, chunks: int, credit: int = DEFAULT_CREDITS, have: Collection[int] = ()
    ) -> None:
        """Begin with the chunks that are already there.

        Args:
            chunks: Number of chunks of the object.
            credit: Chunks asked for at the same time, 1 to ``MAX_WANT``.
            have: Numbers of the chunks that need not be asked for.

        Raises:
            ValueError: ``credit`` is out of range.
        """
        if not 1 <= credit <= MAX_WANT:
            message = f"credit: {credit}, must be 1 to {MAX_WANT}"
            raise ValueError(message)
        self.chunks = chunks
        self.credit = credit
        self._missing = dict.fromkeys(k for k in range(chunks) if k not in have)
        self._flight: dict[int, int] = {}
        self._asked = 0
        self._silences = 0
        self._timeout_s = _FIRST_TIMEOUT_S
        self._active_s = _NEVER_S
        self._not_before_s = _NEVER_S

    @property
    def complete(self) -> bool:
        """Whether no chunk is missing."""
        return not self._missing

    @property
    def missing(self) -> frozenset[int]:
        """The chunks that have not arrived."""
        return frozenset(self._missing)

    @property
    def arrived_count(self) -> int:
        """How many chunks are there."""
        return self.chunks - len(self._missing)

    @property
    def in_flight(self) -> frozenset[int]:
        """The chunks that were asked for and are still awaited."""
        return frozenset(self._flight)

    @property
    def due_s(self) -> float | None:
        """When ``want`` may have something to say although nothing arrived; None: never."""
        if self.complete:
            return None
        return self._active_s + self._hold_s if self._flight else self._not_before_s

    def want(self, now_s: float, limit: int = MAX_WANT) -> tuple[int, ...]:
        """Return the chunks to ask for now; they count as in flight from here on.

        Args:
            now_s: Now, seconds.
            limit: At most so many, on top of the window's own credit.
        """
        self.lapse(now_s)
        if now_s < self._not_before_s:
            return ()
        credit = 1 if self._silences else self.credit
        room = max(0, min(credit - len(self._flight), limit))
        chosen = tuple(islice((k for k in self._missing if k not in self._flight), room))
        for k in chosen:
            self._asked += 1
            self._flight[k] = self._asked
            self._active_s = now_s
        return chosen

    def arrived(self, k: int, now_s: float) -> bool:
        """Note that chunk ``k`` is there, asked for or not; return whether it was missing."""
        number = self._flight.pop(k, None)
        if number is not None:
            gap_s = now_s - self._active_s
            self._timeout_s = min(_MAX_TIMEOUT_S, max(_FIRST_TIMEOUT_S, 2.0 * gap_s))
            self._drop_overtaken(number)
        self._silences = 0
        self._active_s = now_s
        self._not_before_s = _NEVER_S
        return self._missing.pop(k, k) is None

    def lapse(self, now_s: float) -> None:
        """Give up waiting for what is in flight when nothing has arrived for too long."""
        if not self._flight or now_s < self._active_s + self._hold_s:
            return
        self._flight.clear()
        self._silences += 1
        self._not_before_s = self._active_s + self._timeout_s
        self._timeout_s = min(_MAX_TIMEOUT_S, 2.0 * self._timeout_s)

    def reset_flight(self) -> None:
        """Forget what was asked: the counterpart has started anew and knows nothing of it."""
        self._flight.clear()
        self._silences = 0
        self._timeout_s = _FIRST_TIMEOUT_S
        self._not_before_s = _NEVER_S

    @property
    def _hold_s(self) -> float:
        return min(self._timeout_s, _PROBE_HOLD_S) if self._silences else self._timeout_s

    def _drop_overtaken(self, number: int) -> None:
        """Take chunks for lost that many later ones have overtaken; ``want`` names them again."""
        lost = [k for k, asked in self._flight.items() if asked <= number - 2 * self.credit]
        for k in lost:
            del self._flight[k]
