"""Fetches many large objects at the same time, whichever way they travel.

An upload is pulled with ``Need``, a download with ``Get``; the caller says which by the function
that makes the message. Chunks go straight to part files, so memory stays at the size of one.
"""

import hashlib
from collections.abc import Collection, Iterable

from schemas.errors import PayloadError
from schemas.limits import DEFAULT_CREDITS, MAX_CHUNK_BYTES, MIB
from schemas.messages import ObjectManifest
from transport.assembly import Assembly, ObjectMismatchError, check_manifest
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from transport.pull import Ask, Pull, PullProgress, PullRefusedError
from transport.transfer import ChunkWindow

__all__ = ["Ask", "PullProgress", "PullRefusedError", "Puller"]

#: A manifest that is repeated while chunks still arrive does not restart the window.
_LIVELY_S = 1.0


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
        self._pulls: dict[str, Pull] = {}

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
        check_manifest(manifest, tail)
        known = self._pulls.get(key)
        if known and known.manifest.sha256 == manifest.sha256:
            return self._again(key, known, now_s)
        if known:
            self.forget(key)
        if manifest.inline:
            return PullProgress(completed=self._store_inline(manifest, tail, durable=durable))
        part = self._store.part_path(key, manifest.sha256)
        if self._store.verify(manifest.sha256):  # a damaged one is removed, and comes anew
            part.unlink(missing_ok=True)
            return PullProgress(completed=manifest.sha256)
        if len(self._pulls) >= self._max_pulls:
            raise PullRefusedError(self._max_pulls)
        assembly = Assembly(part, manifest, tail)
        window = ChunkWindow(manifest.chunks, self._credit, assembly.have)
        pull = Pull(manifest, assembly, window, ask, patience_s, durable, patience_s > 0.0, now_s)
        self._pulls[key] = pull
        failpoint("transport.pull.begun")
        return self._step(key, pull, now_s)

    def chunk(
        self, key: str, k: int, data: bytes, now_s: float, *, is_multicast: bool = False
    ) -> PullProgress:
        """Take one chunk that arrived; an unknown key is ignored.

        Args:
            key: Names the pull.
            k: The chunk's number.
            data: The chunk.
            now_s: Now, seconds.
            is_multicast: Whether it was sent to everyone: the others then follow unasked, also
                when this one had been asked for.

        Raises:
            PayloadError: The chunk does not match the manifest; the pull goes on.
            ObjectMismatchError: Every chunk matches, the whole object does not; the pull is
                dropped, and its sender should be told ``rejected``.
        """
        pull = self._pulls.get(key)
        if pull is None:
            return PullProgress()
        if not pull.completed:
            self._take(pull, k, data, now_s, is_multicast=is_multicast)
        return self._step(key, pull, now_s)

    def due(self, now_s: float) -> list[Outgoing]:
        """Return what to ask for now, overdue chunks included; oldest pulls first."""
        for pull in self._pulls.values():
            pull.window.lapse(now_s)
        return self._ask_all(self._pulls.values(), now_s)

    def wake(self, now_s: float, keys: Collection[str] | None = None) -> list[Outgoing]:
        """Ask at once, of all pulls or of ``keys``: the counterpart is back."""
        for key, pull in self._pulls.items():
            if keys is None or key in keys:
                pull.window.reset_flight()
                pull.listening = False
        return self.due(now_s)

    def forget(self, key: str) -> None:
        """Drop a pull, whole or not, and its part file; an unknown key is no error."""
        pull = self._pulls.pop(key, None)
        if pull is not None and not pull.completed:
            pull.assembly.discard()

    def expire(self, now_s: float, idle_s: float = 600.0) -> list[str]:
        """Drop pulls for which nothing has arrived for ``idle_s``; return their keys.

        Part files stay: a sender that comes back offers again, and the pull resumes.
        """
        old = [key for key, pull in self._pulls.items() if now_s - pull.heard_s >= idle_s]
        for key in old:
            del self._pulls[key]
        return old

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say; None: not before something arrives."""
        if self._room_bytes < MAX_CHUNK_BYTES:
            pulls = [pull for pull in self._pulls.values() if pull.window.in_flight]
        else:
            pulls = list(self._pulls.values())
        return min((due for pull in pulls if (due := pull.due_s) is not None), default=None)

    def keys(self) -> tuple[str, ...]:
        """Return the keys of all pulls, oldest first."""
        return tuple(self._pulls)

    def share(self, key: str) -> float | None:
        """Return which share of a pull's chunks is there, 0 to 1; None: no such pull."""
        pull = self._pulls.get(key)
        return None if pull is None else pull.window.arrived_count / pull.window.chunks

    @property
    def in_flight_bytes(self) -> int:
        """Bytes asked for and not yet arrived, over all pulls."""
        return sum(
            len(pull.window.in_flight) * pull.manifest.chunk_bytes for pull in self._pulls.values()
        )

    @property
    def _room_bytes(self) -> int:
        return self._budget_bytes - self.in_flight_bytes

    def _store_inline(self, manifest: ObjectManifest, data: bytes, *, durable: bool) -> str:
        found = hashlib.sha256(data).hexdigest()
        if found != manifest.sha256:
            message = f"sha256: the object has {found}, the manifest says {manifest.sha256}"
            raise PayloadError(message)
        return self._store.put(data, durable=durable)

    def _again(self, key: str, pull: Pull, now_s: float) -> PullProgress:
        """Take a repeated manifest as a sign of life; a lively window goes on as it is."""
        if now_s - pull.heard_s >= _LIVELY_S:
            pull.window.reset_flight()
        return self._step(key, pull, now_s)

    @staticmethod
    def _take(pull: Pull, k: int, data: bytes, now_s: float, *, is_multicast: bool) -> None:
        is_new = pull.assembly.write(k, data)
        if is_new:
            unasked = is_multicast or k not in pull.window.in_flight
            pull.listening = unasked and pull.patience_s > 0.0
        pull.window.arrived(k, now_s)
        pull.heard_s = now_s

    def _step(self, key: str, pull: Pull, now_s: float) -> PullProgress:
        """Finish, or ask on: this pull before the others that wait for budget."""
        if pull.window.complete and not pull.completed:
            self._finish(key, pull)
        outgoing = self._ask_all((pull, *self._pulls.values()), now_s)
        return PullProgress(tuple(outgoing), pull.manifest.sha256 if pull.completed else None)

    def _finish(self, key: str, pull: Pull) -> None:
        try:
            pull.assembly.finish(self._store, durable=pull.durable)
        except ObjectMismatchError:
            del self._pulls[key]
            raise
        pull.completed = True
        failpoint("transport.pull.finished")

    def _ask_all(self, pulls: Iterable[Pull], now_s: float) -> list[Outgoing]:
        room = self._room_bytes
        outgoing = []
        for pull in pulls:
            if room <= 0:
                break
            if pull.completed or pull.is_listening(now_s):
                continue
            want = pull.window.want(now_s, room // pull.manifest.chunk_bytes)
            if want:
                room -= len(want) * pull.manifest.chunk_bytes
                outgoing.append(pull.ask(want, self._credit))
        return outgoing
