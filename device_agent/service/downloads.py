"""Global models and training graphs on their way to this device."""

import hashlib

from device_agent.service.wire import Wire
from schemas.errors import PayloadError
from schemas.ids import SHA16_LENGTH
from schemas.messages import Get, ObjectManifest
from schemas.topics import Kind, Topic
from transport.assembly import check_manifest
from transport.events import Outgoing
from transport.failpoints import failpoint
from transport.objects import ObjectStore, describe
from transport.puller import Ask, Puller, PullProgress

#: How long a multicast that is under way is listened to before holes are asked for.
PATIENCE_S = 1.0


class Downloads:
    """Keeps models and graphs in the object store by digest; pulls are keyed by its prefix.

    A model that came inline is written without waiting for the disk: after a power cut it is
    missing or torn, which is noticed, and it is then pulled like a large one.
    """

    def __init__(self, wire: Wire, objects: ObjectStore, puller: Puller) -> None:
        self._wire = wire
        self._objects = objects
        self._puller = puller

    def admit(self, manifest: ObjectManifest, tail: bytes) -> tuple[ObjectManifest, bytes]:
        """Return a manifest by which the model can be pulled, and its chunks' digests.

        An inline model is stored.

        Raises:
            PayloadError: Manifest and tail do not fit together.
        """
        check_manifest(manifest, tail)
        if not manifest.inline:
            return manifest, tail
        found = hashlib.sha256(tail).hexdigest()
        if found != manifest.sha256:
            message = f"sha256: the tail has {found}, the manifest says {manifest.sha256}"
            raise PayloadError(message)
        self._objects.put(tail, durable=False)
        failpoint("device.model.stored")
        return describe(tail, manifest.chunk_bytes)

    def is_here(self, sha256: str) -> bool:
        """Tell whether a model or graph is there and whole."""
        return self._objects.intact(sha256)

    def has(self, sha256: str) -> bool:
        """Tell whether a file of that name is there; what is in it shows when it is used."""
        return self._objects.has(sha256)

    def begin(
        self, manifest: ObjectManifest, digests: bytes, now_s: float, *, is_cast: bool = True
    ) -> PullProgress:
        """Begin to fetch a model or graph; one that is being fetched already goes on.

        Args:
            manifest: What to fetch.
            digests: Of its chunks.
            now_s: Now, seconds.
            is_cast: Whether the gateway multicasts it unasked, so that listening comes first.

        Raises:
            PayloadError: Manifest and digests do not fit together.
        """
        return self._puller.start(
            manifest.sha256[:SHA16_LENGTH],
            manifest,
            digests,
            self._asker(manifest.sha256),
            now_s,
            patience_s=PATIENCE_S if is_cast else 0.0,
            durable=False,
        )

    def block(self, topic: Topic, data: bytes, now_s: float) -> PullProgress:
        """Take one chunk; one that nobody here waits for is ignored.

        Raises:
            PayloadError: It does not match its digest.
        """
        if topic.sha16 is None or topic.k is None:
            return PullProgress()
        is_multicast = topic.address is not None and topic.address.is_everyone
        return self._puller.chunk(topic.sha16, topic.k, data, now_s, is_multicast=is_multicast)

    def due(self, now_s: float) -> list[Outgoing]:
        """Return what to ask for now."""
        return self._puller.due(now_s)

    def wake(self, now_s: float) -> list[Outgoing]:
        """Ask at once: the gateway is back."""
        return self._puller.wake(now_s)

    def next_due_s(self) -> float | None:
        """Return when ``due`` may have something to say."""
        return self._puller.next_due_s()

    def forget_all_but(self, wanted: frozenset[str]) -> None:
        """Drop the pulls that no job waits for; ``wanted`` holds whole digests."""
        keys = {sha256[:SHA16_LENGTH] for sha256 in wanted}
        for key in set(self._puller.keys()) - keys:
            self._puller.forget(key)

    def _asker(self, sha256: str) -> Ask:
        def ask(want: tuple[int, ...], _credit: int) -> Outgoing:
            return self._wire.message(Kind.GET, Get(sha256=sha256, want=want))

        return ask
