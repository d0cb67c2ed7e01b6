"""Global models and training graphs: fetched once, multicast once, and repaired block by block.

What is said of models here holds for graphs, which never ride inline, and for deltas. What rides
inline needs none of this; it lies in its assignment's frame, and is cut into blocks only for a
device that asks for it. Where there are deltas, model and older deltas are fetched only when a
device asks, and then go to who asked.
"""

from collections.abc import Collection

from regional_gateway.core.fanout import shares_answer, shares_model
from regional_gateway.service.deferred import Deferred
from regional_gateway.service.due import earliest
from regional_gateway.service.links import DOWNLINK, Links
from regional_gateway.service.ports import AssignmentRow, AssignmentStore
from schemas.envelope import decode_frame
from schemas.ids import SHA16_LENGTH
from schemas.limits import DEFAULT_CREDITS
from schemas.messages import Get, ObjectManifest, cut_tail
from schemas.topics import EVERYONE_LEVEL, Kind, Topic
from transport.caster import Caster, blocks
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from transport.puller import Puller, PullProgress


class Models:
    """The region's cache of models and graphs."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by the composition root
        self,
        store: AssignmentStore,
        objects: ObjectStore,
        puller: Puller,
        caster: Caster,
        links: Links,
        deferred: Deferred,
        cache_bytes: int,
    ) -> None:
        """Begin; nothing is fetched before ``fetch_missing``.

        Args:
            store: The current assignments, which name the models.
            objects: The cache.
            puller: Fetches from central.
            caster: Multicasts to the region.
            links: Makes messages.
            deferred: What waits for the commit.
            cache_bytes: Most bytes of models kept that no assignment names.
        """
        self._store = store
        self._objects = objects
        self._puller = puller
        self._caster = caster
        self._links = links
        self._deferred = deferred
        self._cache_bytes = cache_bytes
        self._is_releasing = False
        #: Who asked for what before it was here.
        self._waiting: dict[str, dict[str, Get]] = {}

    def fetch(self, row: AssignmentRow, tail: bytes, now_s: float) -> list[Outgoing]:
        """Fetch what devices will need and what is not here; ``tail`` is the frame's."""
        return [out for one in row.eager for out in self._fetch(one, _part(row, one, tail), now_s)]

    def _fetch(self, model: ObjectManifest, tail: bytes, now_s: float) -> list[Outgoing]:
        """Fetch a model unless it rides inline, is here or is already on its way."""
        if model.inline or self._objects.intact(model.sha256):
            return []

        def ask(want: tuple[int, ...], _credit: int = DEFAULT_CREDITS) -> Outgoing:
            frame = self._links.frames.frame(Get(sha256=model.sha256, want=want))
            return self._links.up(Kind.GET, frame)

        key = model.sha256[:SHA16_LENGTH]
        progress = self._puller.start(key, model, tail, ask, now_s, durable=False)
        return self._go_on(model, progress)

    def fetch_missing(self, now_s: float) -> list[Outgoing]:
        """Fetch all that a current assignment names, that will be needed and is not here."""
        outgoing: list[Outgoing] = []
        for row in self._store.assignments():
            if any(not one.inline for one in row.eager):
                outgoing += self.fetch(row, self._tail(row), now_s)
        return outgoing

    def on_block(self, sha16: str, k: int, data: bytes, now_s: float) -> list[Outgoing]:
        """Take one block of a model from central; one that nobody asked for is ignored.

        Raises:
            PayloadError: It is not the block that the manifest names.
        """
        found = self._find(sha16)
        if found is None or sha16 not in self._fetching():
            return []
        return self._go_on(found[1], self._puller.chunk(sha16, k, data, now_s))

    def on_get(self, device: str, get: Get, now_s: float) -> list[Outgoing]:
        """Answer a device that misses blocks; a model that no assignment names is ignored."""
        found = self._find(get.sha256)
        if found is None:
            return []
        row, model = found
        if model.inline:
            return self._inline_blocks(device, row, model, get)
        if not self._objects.intact(get.sha256):
            self._waiting.setdefault(get.sha256, {})[device] = get
            return self._fetch(model, _part(row, model, self._tail(row)), now_s)
        return self._blocks(device, model, get)

    def on_published(self, token: int, now_s: float) -> list[Outgoing]:
        """Take a PUBACK of the downlink: it paces the multicast."""
        return self._caster.on_published(token, now_s)

    def wake(self, now_s: float) -> list[Outgoing]:
        """Central is back: ask again at once."""
        return [*self._puller.wake(now_s), *self.fetch_missing(now_s)]

    def release(self) -> None:
        """Stop what no assignment needs any more, after the commit, and trim the cache."""
        self._is_releasing = True
        self._deferred.add(self._release)

    def due(self, now_s: float, *, uplink_up: bool) -> list[Outgoing]:
        """Return the questions (while central can hear them) and the blocks that are due."""
        questions = self._puller.due(now_s) if uplink_up else []
        return [*questions, *self._caster.due(now_s)]

    def next_due_s(self, *, uplink_up: bool) -> float:
        """Return when ``due`` may have something to say; infinity: not before an event."""
        return earliest(
            self._caster.next_due_s(), self._puller.next_due_s() if uplink_up else None
        )

    def _go_on(self, model: ObjectManifest, progress: PullProgress) -> list[Outgoing]:
        outgoing = list(progress.outgoing)
        if progress.completed is None:
            return outgoing
        failpoint("gateway.model.fetched")
        self._deferred.add(lambda: self._puller.forget(model.sha256[:SHA16_LENGTH]))
        self.release()
        waiting = self._waiting.pop(model.sha256, {})
        if self._is_shared(model.sha256, waiting):
            path = self._objects.path(model.sha256)
            everyone = self._links.device(EVERYONE_LEVEL)
            self._caster.start(model.sha256, path, model.chunk_bytes, everyone)
            failpoint("gateway.model.cast")
            return outgoing
        for device, get in waiting.items():
            outgoing += self._blocks(device, model, get)
        return outgoing

    def _is_shared(self, sha256: str, waiting: Collection[str]) -> bool:
        """Tell whether one copy for everyone is better than one for each that needs it."""
        return any(
            shares_model(row.cohort)
            if sha256 in {one.sha256 for one in row.eager}
            else shares_answer(waiting, row.cohort)
            for row in self._store.assignments()
            if sha256 in {one.sha256 for one in row.objects}
        )

    def _blocks(self, device: str, model: ObjectManifest, get: Get) -> list[Outgoing]:
        path = self._objects.path(model.sha256)
        address = self._links.device(device)
        return blocks(DOWNLINK, address, model.sha256, path, model.chunk_bytes, get.want)

    def _inline_blocks(
        self, device: str, row: AssignmentRow, model: ObjectManifest, get: Get
    ) -> list[Outgoing]:
        tail = _part(row, model, self._tail(row))
        size = model.chunk_bytes
        address = self._links.device(device)
        sha16 = model.sha256[:SHA16_LENGTH]
        return [
            Outgoing(
                Topic(Kind.BLOCK, address, sha16=sha16, k=k),
                tail[k * size : (k + 1) * size],
                DOWNLINK,
            )
            for k in get.want
            if k < model.chunks
        ]

    def _tail(self, row: AssignmentRow) -> bytes:
        frame = self._store.assignment_frame(row.key)
        return b"" if frame is None else decode_frame(frame).tail

    def _find(self, sha256_prefix: str) -> tuple[AssignmentRow, ObjectManifest] | None:
        return next(
            (
                (row, one)
                for row in self._store.assignments()
                for one in row.objects
                if one.sha256.startswith(sha256_prefix)
            ),
            None,
        )

    def _fetching(self) -> tuple[str, ...]:
        return self._puller.keys()

    def _release(self) -> None:
        if not self._is_releasing:
            return
        self._is_releasing = False
        named = {one.sha256 for row in self._store.assignments() for one in row.objects}
        prefixes = {sha256[:SHA16_LENGTH] for sha256 in named}
        obsolete = [key for key in self._fetching() if key not in prefixes]
        for key in obsolete:
            self._puller.forget(key)
        for sha256 in self._objects.trim(self._cache_bytes, named):
            self._caster.cancel(sha256)
        failpoint("gateway.cache.trimmed")
        self._waiting = {s: gets for s, gets in self._waiting.items() if s in named}


def _part(row: AssignmentRow, model: ObjectManifest, tail: bytes) -> bytes:
    """Return the part of a frame's tail that belongs to one of ``row.objects``."""
    return cut_tail(row.objects, tail)[row.objects.index(model)]
