"""Forward graphs and training graphs on disk, by the digest of what they are made from.

A file's name also holds the SHA-256 of its bytes, so that a torn file never passes for a graph:
what does not match is removed and made again.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from transport.syncing import sync

FORWARD, STEP = ".forward.onnx", ".step"
#: What was used last stays; a graph that is missing is only made again.
MAX_GRAPHS = 128
MAX_BYTES = 4 * 1024**3
_DRAFT_S = 3600.0
_BLOCK_BYTES = 1 << 20


class ForwardStore:
    """Files of one folder; several processes may use it at once.

    Args:
        folder: Made when the first graph is stored, readable by its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._intact: set[str] = set()

    def find(self, key: str, kind: str = FORWARD) -> Path | None:
        """Return the file of a graph, and note that it was used.

        It is hashed once in a process, then believed. One that cannot be read is as if missing.
        """
        for path in self._versions(key, kind):
            if not self._is_whole(path):
                continue
            with suppress(OSError):  # of another user
                os.utime(path)
            return path
        return None

    def is_writable(self) -> bool:
        """Tell whether a graph could be stored, as far as permissions go."""
        folder = self.folder.absolute()
        while not folder.exists() and not folder.is_symlink():
            folder = folder.parent
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

    def need(self, key: str, kind: str = FORWARD) -> Path:
        """Return the file of a graph that was stored just now.

        Raises:
            FileNotFoundError: It was removed meanwhile.
        """
        found = self.find(key, kind)
        if found is None:
            message = f"graph {key[:12]} was removed from {self.folder} meanwhile"
            raise FileNotFoundError(message)
        return found

    def put(self, key: str, content: bytes, kind: str = FORWARD) -> Path:
        """Store a graph durably, whole or not at all, forget those used longest ago.

        Returns:
            Its file.

        Raises:
            OSError: The disk is full or the folder cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{key}.{hashlib.sha256(content).hexdigest()}{kind}"
        draft = self.folder / f".{key}.{secrets.token_hex(4)}.draft"
        try:
            draft.write_bytes(content)
            sync(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        sync(self.folder)
        self._intact.add(path.name)
        self._forget()
        return path

    def _versions(self, key: str, kind: str) -> list[Path]:
        """Return the files of a key: one, or more if builds of it were not equal."""
        try:
            return sorted(self.folder.glob(f"{key}.*{kind}"))
        except OSError:
            return []

    def _is_whole(self, path: Path) -> bool:
        digest = hashlib.sha256()
        try:
            if path.stat() and path.name in self._intact:
                return True
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except OSError:
            return False
        if path.name.split(".")[1] == digest.hexdigest():
            self._intact.add(path.name)
            return True
        with suppress(OSError):
            path.unlink()
        return False

    def _forget(self) -> None:
        found = []
        for path, status in self._listed():
            if path.name.endswith((FORWARD, STEP)):
                found.append((status.st_mtime_ns, status.st_size, path))
            elif path.suffix == ".draft" and status.st_mtime < time.time() - _DRAFT_S:  # noqa: TID251 - files have that clock
                _remove(path)  # of a process that was killed
        kept_bytes = 0
        for place, (_, size, path) in enumerate(sorted(found, reverse=True)):
            kept_bytes += size
            if place and (place >= MAX_GRAPHS or kept_bytes > MAX_BYTES):
                _remove(path)

    def _listed(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            try:
                yield path, path.stat()
            except FileNotFoundError:  # noqa: PERF203 - each may be gone
                continue  # another process was faster


def _remove(path: Path) -> None:
    with suppress(OSError):  # in a folder of another user it stays
        path.unlink()
