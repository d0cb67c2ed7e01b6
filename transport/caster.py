"""Multicasts an object's blocks to a region, and answers who missed some.

The broker's PUBACK paces it: at most a window of blocks is in memory. Nothing is repeated here;
devices ask for what they missed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import structlog

from schemas.ids import SHA16_LENGTH
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.objects import read_block

#: A block that was refused, or whose PUBACK is lost, keeps its place in the window this long.
_PUBACK_TIMEOUT_S = 5.0
#: Blocks read into memory for one ``Get``, however many it asks for.
_MAX_ANSWERED = 8

_log = structlog.get_logger()


@dataclass(slots=True)
class _Cast:
    sha256: str
    path: Path
    chunk_bytes: int
    address: Address
    chunks: int
    next_k: int = 0


def blocks(  # noqa: PLR0913, PLR0917 - what, from where, to whom
    session_name: str,
    address: Address,
    sha256: str,
    path: Path,
    chunk_bytes: int,
    want: Iterable[int],
) -> list[Outgoing]:
    """Return an object's blocks, to answer a ``Get``; at most 8, numbers behind the end ignored.

    Raises:
        FileNotFoundError: The object's file is not there.
    """
    chunks = _chunks(path, chunk_bytes)
    wanted = [k for k in want if 0 <= k < chunks][:_MAX_ANSWERED]
    cast = _Cast(sha256, path, chunk_bytes, address, chunks)
    return [_block(session_name, cast, k) for k in wanted]


class Caster:
    """Casts of one session, one after another."""

    def __init__(
        self, session_name: str, window: int = 4, tokens: Iterator[int] | None = None
    ) -> None:
        """Begin with nothing to cast.

        Args:
            session_name: The session that carries the blocks.
            window: Blocks published and not yet acknowledged by the broker.
            tokens: Where ``Outgoing.token`` comes from; share it between all that use tokens on
                this session. Default: counted from 1.
        """
        self._session_name = session_name
        self._window = window
        self._tokens = count(1) if tokens is None else tokens
        self._casts: list[_Cast] = []
        self._unacknowledged: dict[int, float] = {}

    def start(self, sha256: str, path: Path, chunk_bytes: int, address: Address) -> None:
        """Queue a cast; one of the same object to the same address that is under way stays.

        Raises:
            FileNotFoundError: The object's file is not there.
        """
        if any((cast.sha256, cast.address) == (sha256, address) for cast in self._casts):
            return
        chunks = _chunks(path, chunk_bytes)
        self._casts.append(_Cast(sha256, path, chunk_bytes, address, chunks))

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the blocks to publish now; a block unacknowledged for 5 s frees its place."""
        self._unacknowledged = {
            token: until_s for token, until_s in self._unacknowledged.items() if until_s > now_s
        }
        outgoing: list[Outgoing] = []
        while self._casts and len(self._unacknowledged) < self._window:
            self._publish_next(self._casts[0], now_s, outgoing)
        return outgoing

    def on_published(self, token: int, now_s: float) -> list[Outgoing]:
        """Take a PUBACK and return the next blocks; a token of others changes nothing."""
        if self._unacknowledged.pop(token, None) is None:
            return []
        return self.due(now_s)

    def cancel(self, sha256: str) -> None:
        """Stop casting an object, to every address."""
        self._casts = [cast for cast in self._casts if cast.sha256 != sha256]

    def is_casting(self, sha256: str) -> bool:
        """Tell whether blocks of an object are still to be published."""
        return any(cast.sha256 == sha256 for cast in self._casts)

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: nothing to cast."""
        if not self._casts:
            return None
        if len(self._unacknowledged) < self._window:
            return float("-inf")
        return min(self._unacknowledged.values())

    def _publish_next(self, cast: _Cast, now_s: float, outgoing: list[Outgoing]) -> None:
        token = next(self._tokens)
        try:
            outgoing.append(_block(self._session_name, cast, cast.next_k, token))
        except FileNotFoundError:
            _log.warning("cast_ended", reason="object was removed", sha256=cast.sha256)
            self._casts.remove(cast)
            return
        self._unacknowledged[token] = now_s + _PUBACK_TIMEOUT_S
        cast.next_k += 1
        if cast.next_k >= cast.chunks:
            self._casts.remove(cast)


def _chunks(path: Path, chunk_bytes: int) -> int:
    return -(-path.stat().st_size // chunk_bytes)


def _block(session_name: str, cast: _Cast, k: int, token: int | None = None) -> Outgoing:
    topic = Topic(Kind.BLOCK, cast.address, sha16=cast.sha256[:SHA16_LENGTH], k=k)
    return Outgoing(topic, read_block(cast.path, k, cast.chunk_bytes), session_name, token)
