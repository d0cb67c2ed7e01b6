"""The question for the current job: asked on connect until answered, then every 5 minutes.

While a job waits for its objects it is asked every 10 seconds: once the round has ended, nobody
serves them any more, and the answer is what ends the wait.
"""

import math
from collections.abc import Iterable

import numpy as np

from device_agent.core.job import JobKey
from device_agent.service.records import JobStore
from device_agent.service.wire import Wire
from schemas.envelope import decode_frame
from schemas.messages import JobRef, Next
from schemas.topics import Kind
from transport.events import Outgoing
from transport.retry import Backoff

PERIOD_S = 300.0
WAITING_S = 10.0
#: Jobs named in one question, as ``Next.holding`` allows.
_MAX_HOLDING = 64
#: Jobs named in one question, as ``Next.unsettled`` allows.
_MAX_UNSETTLED = 8
#: Questions whose answer may still be under way.
_REMEMBERED = 8


class Questions:
    """Asks, repeats, and remembers which jobs each question named as held.

    Attributes:
        next_s: When it asks next, unix seconds.
    """

    def __init__(
        self, wire: Wire, store: JobStore, backoff: Backoff, rng: np.random.Generator
    ) -> None:
        self.next_s = math.inf
        self._wire = wire
        self._store = store
        self._backoff = backoff
        self._rng = rng
        self._tries = 0
        self._asked: dict[str, frozenset[JobKey]] = {}

    def begin(self, now_s: float) -> list[Outgoing]:
        """Ask at once, and again until somebody answers."""
        self._tries = 0
        self.next_s = now_s
        return self.due(now_s)

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the question when its time has come."""
        if now_s < self.next_s:
            return []
        self.next_s = now_s + self._backoff.delay_s(self._tries, self._rng)
        self._tries += 1
        return [self._ask()]

    def answered(self, now_s: float) -> None:
        """Note that somebody answered: the next question is the periodic one."""
        self._tries = 0
        self.next_s = now_s + PERIOD_S

    def hasten(self, now_s: float) -> None:
        """Ask soon: a job waits for what may never come."""
        self.next_s = min(self.next_s, now_s + WAITING_S)

    def held_at(self, question: str | None) -> frozenset[JobKey] | None:
        """Return the jobs that a question named as held; None: it was not asked here."""
        return self._asked.get(question or "")

    def _ask(self) -> Outgoing:
        held = self._store.unfinished(_MAX_HOLDING)
        body = Next(holding=_refs(held), unsettled=_refs(self._store.unsettled(_MAX_UNSETTLED)))
        message = self._wire.message(Kind.NEXT, body)
        self._asked[decode_frame(message.payload).header.id] = frozenset(held)
        while len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
        return message


def _refs(keys: Iterable[JobKey]) -> tuple[JobRef, ...]:
    return tuple(JobRef(task=key.task, round=key.round) for key in keys)
