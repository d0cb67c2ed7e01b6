"""Large objects on disk, each under the SHA-256 of its bytes.

A name is always 64 hex digits that this program has checked, so nothing that came over the
network can become a path. ``root/objects`` holds whole objects, ``root/parts`` what is not yet
whole. One process owns a root.
"""

import hashlib
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from schemas.ids import is_hex
from schemas.limits import DEFAULT_CHUNK_BYTES, MAX_INLINE_BYTES, MAX_OBJECT_BYTES, MIB
from schemas.messages import ObjectManifest
from transport.failpoints import failpoint
from transport.syncing import sync

_SHA256_LENGTH = 64
_OBJECTS = "objects"


class ObjectSizeError(ValueError):
    """An object is empty, too large, or has too many chunks."""


class ObjectDamagedError(Exception):
    """A stored object is missing, or its bytes are not those that its name says.

    Attributes:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"object {path} is damaged or missing; put it back from a backup: it is the file of "
            "that name there, or the whole state with fedfleet restore"
        )
        self.path = path


def describe(
    source: bytes | Path, chunk_bytes: int = DEFAULT_CHUNK_BYTES, *, inline: bool = False
) -> tuple[ObjectManifest, bytes]:
    """Return an object's manifest and the tail that goes with it.

    Args:
        source: The object's bytes, or its file, which is read one chunk at a time.
        chunk_bytes: Size of a chunk.
        inline: Whether the object itself may be the tail; done when it is small enough.

    Returns:
        The manifest, and either the object or its chunks' digests, 32 bytes each.

    Raises:
        ObjectSizeError: The size breaks a limit.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if not 1 <= size <= MAX_OBJECT_BYTES:
        message = f"size: {size} bytes, must be 1 to {MAX_OBJECT_BYTES}"
        raise ObjectSizeError(message)
    if inline and size <= MAX_INLINE_BYTES:
        data = source if isinstance(source, bytes) else source.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        inlined = ObjectManifest(sha256=sha256, size=size, chunk_bytes=chunk_bytes, inline=True)
        return inlined, data
    whole = hashlib.sha256()
    digests = []
    for chunk in _chunks_of(source, chunk_bytes):
        whole.update(chunk)
        digests.append(hashlib.sha256(chunk).digest())
    manifest = ObjectManifest(sha256=whole.hexdigest(), size=size, chunk_bytes=chunk_bytes)
    if fault := manifest.fault():
        raise ObjectSizeError(fault)
    return manifest, b"".join(digests)


def check_object(path: Path) -> Path:
    """Hash an object's file, whose name says its SHA-256, and return its path.

    Raises:
        ObjectDamagedError: It is not there, or not whole.
    """
    if not path.is_file() or not _is_whole(path):
        raise ObjectDamagedError(path)
    return path


def read_block(path: Path, k: int, chunk_bytes: int) -> bytes:
    """Return chunk ``k`` of a file; empty when it lies behind the end.

    Raises:
        FileNotFoundError: The file is not there.
    """
    with path.open("rb") as file:
        file.seek(k * chunk_bytes)
        return file.read(chunk_bytes)


def object_path(root: Path, sha256: str) -> Path:
    """Return where an object is or would be below ``root``; for those who only read there.

    Raises:
        ValueError: ``sha256`` is not 64 lower-case hex digits.
    """
    if not is_hex(sha256, _SHA256_LENGTH):
        message = f"sha256: {sha256[:80]!r} is not {_SHA256_LENGTH} hex digits"
        raise ValueError(message)
    return root / _OBJECTS / sha256


class ObjectStore:
    """Whole objects by digest; a torn file never passes for one.

    Attributes:
        root: The directory; ``objects`` and ``parts`` are created in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / _OBJECTS
        self._parts = root / "parts"
        self._intact: set[str] = set()
        for directory in (self._objects, self._parts):
            directory.mkdir(parents=True, exist_ok=True)
        for leftover in self._parts.glob("*.tmp"):
            leftover.unlink()

    def path(self, sha256: str) -> Path:
        """Return where an object is or would be.

        Raises:
            ValueError: ``sha256`` is not 64 lower-case hex digits.
        """
        return object_path(self.root, sha256)

    def part_path(self, key: str, sha256: str) -> Path:
        """Return the part file of one pull: its name depends on the pull's key and the object."""
        name = hashlib.sha256(f"{key}|{sha256}".encode()).hexdigest()
        return self._parts / f"{name}.part"

    def has(self, sha256: str) -> bool:
        """Tell whether a file of that name is there; ``intact`` also looks into it."""
        return self.path(sha256).is_file()

    def intact(self, sha256: str) -> bool:
        """Tell whether the object is there and whole; hashed once in a process, then believed."""
        if not self.has(sha256):
            return False
        return sha256 in self._intact or self.verify(sha256)

    def verify(self, sha256: str) -> bool:
        """Hash the object again; a file that does not match its name is removed.

        Returns:
            Whether the object is there and whole.
        """
        if not self.has(sha256):
            return False
        if not _is_whole(self.path(sha256)):
            self.remove(sha256)
            return False
        self._intact.add(sha256)
        return True

    def check(self, sha256: str) -> Path:
        """Hash the object again and return its path; what is damaged stays for a person to see.

        Raises:
            ObjectDamagedError: It is not there, or not whole.
        """
        return check_object(self.path(sha256))

    def put(self, data: bytes, *, durable: bool) -> str:
        """Store an object and return its SHA-256.

        Args:
            data: The object.
            durable: Whether it must survive a power cut once this returns (two fsyncs).
        """
        sha256 = hashlib.sha256(data).hexdigest()
        descriptor, name = tempfile.mkstemp(dir=self._parts, suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            failpoint("transport.object.written")
            self.adopt(temporary, sha256, durable=durable)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return sha256

    def adopt(self, path: Path, sha256: str, *, durable: bool) -> Path:
        """Take over a file of the same file system whose digest the caller has checked.

        Returns:
            The object's path.
        """
        target = self.path(sha256)
        if durable:
            sync(path)
            failpoint("transport.object.fsynced")
        path.replace(target)
        failpoint("transport.object.renamed")
        if durable:
            sync(self._objects)
            failpoint("transport.object.settled")
        self._intact.add(sha256)
        return target

    def read_chunk(self, sha256: str, k: int, chunk_bytes: int) -> bytes:
        """Return chunk ``k`` of an object; empty when it lies behind the end.

        Raises:
            FileNotFoundError: The object is not there.
        """
        return read_block(self.path(sha256), k, chunk_bytes)

    def read(self, sha256: str) -> bytes:
        """Return a whole object.

        Raises:
            FileNotFoundError: The object is not there.
        """
        return self.path(sha256).read_bytes()

    def remove(self, sha256: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._intact.discard(sha256)
        self.path(sha256).unlink(missing_ok=True)
        failpoint("transport.object.removed")

    def sizes(self) -> dict[str, int]:
        """Return every object's size in bytes, oldest object first."""
        found = sorted((file.stat().st_mtime_ns, file.name, file) for file in self._files())
        return {name: file.stat().st_size for _, name, file in found}

    def keep_only(self, keep: Collection[str]) -> list[str]:
        """Remove every object that is not in ``keep``; return the removed."""
        return self.trim(0, keep)

    def trim(self, max_bytes: int, keep: Collection[str] = ()) -> list[str]:
        """Remove the oldest objects until at most ``max_bytes`` are left; return the removed.

        Args:
            max_bytes: Limit on the sum of all sizes.
            keep: Objects that stay, even when they alone exceed the limit.
        """
        sizes = self.sizes()
        total = sum(sizes.values())
        removed = []
        for sha256, size in sizes.items():
            if total <= max_bytes:
                break
            if sha256 not in keep:
                self.remove(sha256)
                removed.append(sha256)
                total -= size
        return removed

    def remove_parts(self, before_s: float) -> int:
        """Remove part files last written before ``before_s`` (unix seconds); return how many."""
        old = [part for part in self._parts.glob("*.part") if part.stat().st_mtime < before_s]
        for part in old:
            part.unlink(missing_ok=True)
        return len(old)

    def _files(self) -> Iterator[Path]:
        return (file for file in self._objects.iterdir() if is_hex(file.name, _SHA256_LENGTH))


def _chunks_of(source: bytes | Path, chunk_bytes: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), chunk_bytes):
            yield source[start : start + chunk_bytes]
        return
    with source.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            yield chunk


def _is_whole(path: Path) -> bool:
    digest = hashlib.sha256()
    for block in _chunks_of(path, MIB):
        digest.update(block)
    return digest.hexdigest() == path.name
