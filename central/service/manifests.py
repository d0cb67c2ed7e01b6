"""Manifests of stored objects, hashed once and kept for the assignments that repeat them."""

from central.service.ports import Objects
from schemas.messages import ObjectManifest
from transport.objects import ObjectDamagedError, ObjectSizeError, describe

_KEPT = 64


class Manifests:
    """The newest manifests with their tails, by digest."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[tuple[str, bool], tuple[ObjectManifest, bytes]] = {}

    def of(self, sha256: str, *, inline: bool) -> tuple[ObjectManifest, bytes]:
        """Return an object's manifest and what goes with it into a frame's tail.

        Args:
            sha256: Its digest.
            inline: Whether the object itself may be the tail; done when it is small enough.

        Raises:
            ObjectDamagedError: It is missing, or not what its name says.
        """
        key = (sha256, inline)
        found = self._known.pop(key, None) or self._describe(sha256, inline=inline)
        self._known[key] = found
        while len(self._known) > _KEPT:
            del self._known[next(iter(self._known))]
        return found

    def _describe(self, sha256: str, *, inline: bool) -> tuple[ObjectManifest, bytes]:
        known = self._known.get((sha256, not inline))
        if known is not None and not inline and not known[0].inline:
            return known  # too large to be inline: hashed already
        path = self._objects.path(sha256)
        try:
            manifest, tail = describe(path, inline=inline)
        except (FileNotFoundError, ObjectSizeError) as error:
            raise ObjectDamagedError(path) from error
        if manifest.sha256 != sha256:
            raise ObjectDamagedError(path)
        return manifest, tail
