"""Devices' own frames on their way to central: the newest of each kind, until the broker has it.

Nothing here is on disk. What is lost is healed: states are relayed again on every connection and
on central's birth, statuses when central repeats the assignment, both every five minutes.
A frame stays here until the broker's PUBACK, so that a refused publish or an undone transaction
costs only time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from regional_gateway.service.due import NEVER_S, NOW_S
from regional_gateway.service.links import Links
from schemas.limits import MIB
from transport.events import Outgoing

#: What a relayed frame says: of which device, and of which job (None: its state).
Subject = tuple[str, tuple[str, int] | None]

_WINDOW = 64
_MAX_BYTES = 32 * MIB
_PATIENCE_S = 5.0


@dataclass(slots=True)
class _Waiting:
    frame: bytes
    token: int | None = None
    sent_s: float = 0.0


class Relay:
    """Frames to relay, the newest of each subject, a window of them in flight."""

    def __init__(self, links: Links, tokens: Iterator[int]) -> None:
        """Begin empty.

        Args:
            links: Makes the messages.
            tokens: Numbers that no other publisher of the uplink uses.
        """
        self._links = links
        self._tokens = tokens
        self._waiting: dict[Subject, _Waiting] = {}
        self._flight: dict[int, Subject] = {}
        self._bytes = 0

    def put(self, subject: Subject, frame: bytes) -> None:
        """Relay ``frame``; an older one of the same subject that waits is replaced.

        When too much waits, the oldest goes; it is told again within five minutes.
        """
        self._remove(subject)
        self._waiting[subject] = _Waiting(frame)
        self._bytes += len(frame)
        while self._bytes > _MAX_BYTES:
            self._remove(next(iter(self._waiting)))

    def due(self, now_s: float) -> list[Outgoing]:
        """Return what to publish now, oldest first, as far as the window goes."""
        self._lapse(now_s)
        outgoing: list[Outgoing] = []
        for subject, waiting in self._waiting.items():
            if len(self._flight) >= _WINDOW:
                break
            if waiting.token is None:
                outgoing.append(self._send(subject, waiting, now_s))
        return outgoing

    def next_due_s(self) -> float:
        """Return when ``due`` may have something to say; infinity: not before an event."""
        if len(self._flight) < min(_WINDOW, len(self._waiting)):
            return NOW_S
        oldest_s = min((self._waiting[s].sent_s for s in self._flight.values()), default=NEVER_S)
        return oldest_s + _PATIENCE_S

    def on_published(self, token: int) -> None:
        """Forget the frame that the broker has; a token of others changes nothing."""
        subject = self._flight.get(token)
        if subject is not None:
            self._remove(subject)

    def count(self) -> int:
        """Return how many frames wait or are in flight."""
        return len(self._waiting)

    def restart(self) -> None:
        """Publish what is in flight again: the connection is a new one."""
        self._flight.clear()
        for waiting in self._waiting.values():
            waiting.token = None

    def _remove(self, subject: Subject) -> None:
        waiting = self._waiting.pop(subject, None)
        if waiting is not None:
            self._bytes -= len(waiting.frame)
            if waiting.token is not None:
                self._flight.pop(waiting.token, None)

    def _send(self, subject: Subject, waiting: _Waiting, now_s: float) -> Outgoing:
        waiting.token = next(self._tokens)
        waiting.sent_s = now_s
        self._flight[waiting.token] = subject
        return self._links.relayed(subject[0], waiting.frame, waiting.token)

    def _lapse(self, now_s: float) -> None:
        for token, subject in tuple(self._flight.items()):
            waiting = self._waiting[subject]
            if now_s - waiting.sent_s >= _PATIENCE_S:
                del self._flight[token]
                waiting.token = None
