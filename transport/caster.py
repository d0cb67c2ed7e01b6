"""Multicasts an object's blocks to a region, and answers who missed some.

The broker's PUBACK paces it: at most a window of blocks is in memory. Nothing is repeated here;
devices ask for what they missed.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from schemas.topics import Address
from transport.events import Outgoing


def blocks(  # noqa: PLR0913, PLR0917 - what, from where, to whom
    session_name: str,
    address: Address,
    sha256: str,
    path: Path,
    chunk_bytes: int,
    want: Collection[int],
) -> list[Outgoing]:
    """Return an object's blocks, to answer a ``Get``; at most 8, numbers behind the end ignored.

    Raises:
        FileNotFoundError: The object's file is not there.
    """
    raise NotImplementedError


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
        raise NotImplementedError

    def start(self, sha256: str, path: Path, chunk_bytes: int, address: Address) -> None:
        """Queue a cast; one of the same object to the same address that is under way stays."""
        raise NotImplementedError

    def due(self, now_s: float) -> list[Outgoing]:
        """Return the blocks to publish now; a block unacknowledged for 5 s frees its place."""
        raise NotImplementedError

    def on_published(self, token: int, now_s: float) -> list[Outgoing]:
        """Take a PUBACK and return the next blocks; a token of others changes nothing."""
        raise NotImplementedError

    def cancel(self, sha256: str) -> None:
        """Stop casting an object, to every address."""
        raise NotImplementedError

    def is_casting(self, sha256: str) -> bool:
        """Tell whether blocks of an object are still to be published."""
        raise NotImplementedError

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: nothing to cast."""
        raise NotImplementedError
