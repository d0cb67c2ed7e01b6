"""Fetches many large objects at the same time, whichever way they travel.

An upload is pulled with ``Need``, a download with ``Get``; the caller says which by the function
that makes the message. Chunks go straight to part files, so memory stays at the size of one.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from schemas.limits import DEFAULT_CREDITS, MAX_CHUNK_BYTES, MIB
from schemas.messages import ObjectManifest
from transport.assembly import Assembly, check_manifest
from transport.events import Outgoing
from transport.objects import ObjectStore
from transport.transfer import ChunkWindow

_REFUSED_RETRY_S = 5.0
#: A manifest that is repeated while chunks still arrive does not restart the window.
_LIVELY_S = 1.0

#: Makes the message that asks for these chunks; the second argument is the credit.
Ask = Callable[[tuple[int, ...], int], Outgoing]


class PullRefusedError(Exception):
    """Too many pulls are under way; the sender may offer again later.

    Attributes:
        retry_after_s: When to offer again, in seconds from now.
    """

    def __init__(self, limit: int, retry_after_s: float = _REFUSED_RETRY_S) -> None:
        super().__init__(f"pulls: {limit} are under way, no more are allowed")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class PullProgress:
    """What one step of a pull gave.

    Attributes:
        outgoing: Messages to publish; they may belong to other pulls that waited for budget.
        completed: SHA-256 of the object when it is whole and in the store, else None. It is
            told again by every further step until ``forget``.
    """

    outgoing: tuple[Outgoing, ...] = ()
    completed: str | None = None


@dataclass(slots=True)
class _Pull:
    manifest: ObjectManifest
    assembly: Assembly
    window: ChunkWindow
    ask: Ask
    patience_s: float
    durable: bool
    #: Whether it only listens (to a multicast) as long as something arrives.
    listening: bool
    heard_s: float
    completed: bool = False

    def is_patient(self, now_s: float) -> bool:
        if self.listening and now_s - self.heard_s >= self.patience_s:
            self.listening = False
        return self.listening

    @property
    def due_s(self) -> float | None:
        if self.completed:
            return None
        return self.heard_s + self.patience_s if self.listening else self.window.due_s


class Puller:
    """Pulls by key; a key is the caller's word for one transfer.

    Two pulls of the same object do not disturb each other: each has its own part file. Use one
    puller for each counterpart, so that ``wake`` and the limits mean that counterpart.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        budget_bytes: int = 64 * MIB,
        max_pulls: int = 256,
        credit: int = DEFAULT_CREDITS,
    ) -> None:
        """Begin without pulls.

        Args:
            store: Where whole objects go.
            budget_bytes: Bytes asked for and not yet arrived, over all pulls.
            max_pulls: Pulls at the same time.
            credit: Chunks asked for at the same time, a pull.

        Raises:
            ValueError: The budget is smaller than one chunk may be.
        """
        if budget_bytes < MAX_CHUNK_BYTES:
            message = f"budget_bytes: {budget_bytes}, at least {MAX_CHUNK_BYTES}"
            raise ValueError(message)
        self._store = store
        self._budget_bytes = budget_bytes
        self._max_pulls = max_pulls
        self._credit = credit
        self._pulls: dict[str, _Pull] = {}

    def start(  # noqa: PLR0913 - one call says all about a pull
        self,
        key: str,
        manifest: ObjectManifest,
        tail: bytes,
        ask: Ask,
        now_s: float,
        *,
        patience_s: float = 0.0,
        durable: bool = True,
    ) -> PullProgress:
        """Begin a pull, or go on with it when its manifest is repeated.

        An object that is already in the store, or that rides inline, completes at once.

        Args:
            key: Names the pull in every other call; the same key with another object replaces it.
            manifest: What to fetch.
            tail: The frame's tail that belongs to the manifest.
            ask: Makes the message that asks for chunks.
            now_s: Now, seconds.
            patience_s: When above 0, listen first, and ask only when nothing has arrived for
                that long: a multicast is under way.
            durable: Whether the whole object must survive a power cut before it counts as there.

        Raises:
            PayloadError: Manifest and tail do not fit together, or an inline object is not the
                one that its manifest names.
            PullRefusedError: Too many pulls are under way.
        """
        raise NotImplementedError

    def chunk(self, key: str, k: int, data: bytes, now_s: float) -> PullProgress:
        """Take one chunk that arrived; an unknown key is ignored.

        Raises:
            PayloadError: The chunk, or the whole object, does not match the manifest.
        """
        raise NotImplementedError

    def due(self, now_s: float) -> list[Outgoing]:
        """Return what to ask for now, overdue chunks included; oldest pulls first."""
        raise NotImplementedError

    def wake(self, now_s: float, keys: Collection[str] | None = None) -> list[Outgoing]:
        """Ask at once, of all pulls or of ``keys``: the counterpart is back."""
        raise NotImplementedError

    def forget(self, key: str) -> None:
        """Drop a pull, whole or not, and its part file; an unknown key is no error."""
        raise NotImplementedError

    def expire(self, now_s: float, idle_s: float = 600.0) -> list[str]:
        """Drop pulls for which nothing has arrived for ``idle_s``; return their keys.

        Part files stay: a sender that comes back offers again, and the pull resumes.
        """
        raise NotImplementedError

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: not before something arrives."""
        raise NotImplementedError

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all pulls, oldest first."""
        return tuple(self._pulls)

    def share(self, key: str) -> float | None:
        """Return which share of a pull's chunks is there, 0 to 1; None: no such pull."""
        raise NotImplementedError

    @property
    def in_flight_bytes(self) -> int:
        """Bytes asked for and not yet arrived, over all pulls."""
        raise NotImplementedError
