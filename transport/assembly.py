"""One object that arrives in chunks: its part file, and the checks before it becomes whole."""

import hashlib
from pathlib import Path

from schemas.errors import PayloadError
from schemas.messages import ObjectManifest
from transport.failpoints import failpoint
from transport.objects import ObjectStore, read_block

_DIGEST_BYTES = 32


class ObjectMismatchError(PayloadError):
    """Every chunk is as its manifest says, but the whole object is not: the manifest lies."""


def check_manifest(manifest: ObjectManifest, tail: bytes) -> None:
    """Refuse a manifest whose numbers or whose tail do not fit together.

    Raises:
        PayloadError: Names the value and the limit.
    """
    if fault := manifest.fault():
        raise PayloadError(fault)
    if len(tail) != manifest.tail_bytes():
        message = f"tail: {len(tail)} bytes, the manifest asks for {manifest.tail_bytes()}"
        raise PayloadError(message)


class Assembly:
    """A part file that only ever receives chunks whose digest is right.

    Nothing about its progress is stored: after a restart the chunks that the file already holds
    are found by hashing them. So no bitmap has to be written durably with every chunk, and a
    torn write is simply a chunk that is missing.
    """

    def __init__(self, path: Path, manifest: ObjectManifest, tail: bytes) -> None:
        """Open or create the part file and look which chunks it holds.

        Args:
            path: The part file; it belongs to this object and this pull alone.
            manifest: What arrives; not inline.
            tail: SHA-256 of each chunk, 32 bytes each.

        Raises:
            PayloadError: Manifest and tail do not fit together.
        """
        check_manifest(manifest, tail)
        self._path = path
        self._manifest = manifest
        self._digests = tail
        self._whole = hashlib.sha256()
        self._hashed = 0
        self._have: set[int] = set()
        self._resume()

    @property
    def have(self) -> frozenset[int]:
        """The chunks that are in the part file."""
        return frozenset(self._have)

    def write(self, k: int, data: bytes) -> bool:
        """Write one chunk; return whether it was missing.

        Raises:
            PayloadError: The number, the length or the digest is wrong; nothing was written.
            OSError: The disk is full.
        """
        self._check(k, data)
        if k in self._have:
            return False
        with self._path.open("r+b") as file:
            file.seek(k * self._manifest.chunk_bytes)
            file.write(data)
        failpoint("transport.chunk.written")
        self._have.add(k)
        if k == self._hashed:
            self._hash_on(data)
        return True

    def finish(self, store: ObjectStore, *, durable: bool) -> Path:
        """Check the whole object and move it into the store; return its path.

        Raises:
            PayloadError: A chunk is missing.
            ObjectMismatchError: The whole is not the manifest's; the part file was removed.
        """
        if len(self._have) != self._manifest.chunks:
            message = f"chunks: {len(self._have)} of {self._manifest.chunks} are there"
            raise PayloadError(message)
        found = self._whole.hexdigest()
        if found != self._manifest.sha256:
            self.discard()
            message = f"sha256: the chunks give {found}, the manifest says {self._manifest.sha256}"
            raise ObjectMismatchError(message)
        failpoint("transport.part.whole")
        return store.adopt(self._path, self._manifest.sha256, durable=durable)

    def discard(self) -> None:
        """Remove the part file."""
        self._path.unlink(missing_ok=True)

    def _check(self, k: int, data: bytes) -> None:
        if not 0 <= k < self._manifest.chunks:
            message = f"k: {k}, must be 0 to {self._manifest.chunks - 1}"
            raise PayloadError(message)
        if len(data) != self._length(k):
            message = f"chunk {k}: {len(data)} bytes, must be {self._length(k)}"
            raise PayloadError(message)
        if not self._matches(k, data):
            message = f"chunk {k}: its SHA-256 is not the manifest's"
            raise PayloadError(message)

    def _length(self, k: int) -> int:
        whole = self._manifest.chunk_bytes
        return min(whole, self._manifest.size - k * whole)

    def _matches(self, k: int, data: bytes) -> bool:
        expected = self._digests[k * _DIGEST_BYTES : (k + 1) * _DIGEST_BYTES]
        return hashlib.sha256(data).digest() == expected

    def _hash_on(self, data: bytes) -> None:
        """Feed the whole object's hash as far as chunks are there without a gap.

        So the cost is spread over the chunks, and the last one does not wait for a long read.
        """
        self._whole.update(data)
        self._hashed += 1
        while self._hashed in self._have:
            self._whole.update(read_block(self._path, self._hashed, self._manifest.chunk_bytes))
            self._hashed += 1

    def _resume(self) -> None:
        self._path.touch()
        failpoint("transport.part.created")
        with self._path.open("r+b") as file:
            file.truncate(min(self._path.stat().st_size, self._manifest.size))
            for k in range(self._manifest.chunks):
                data = file.read(self._manifest.chunk_bytes)
                if not data:
                    break
                self._resume_chunk(k, data)

    def _resume_chunk(self, k: int, data: bytes) -> None:
        if len(data) != self._length(k) or not self._matches(k, data):
            return
        self._have.add(k)
        if k == self._hashed:
            self._whole.update(data)
            self._hashed += 1
