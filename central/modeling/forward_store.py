"""Forward graphs and training graphs on disk, by the digest of what they are made from."""

import os
import secrets
import time
from pathlib import Path

FORWARD, STEP = ".forward.onnx", ".step"
#: What was used last stays; a graph that is missing is only made again.
MAX_GRAPHS = 128
MAX_BYTES = 4 * 1024**3
_DRAFT_S = 3600.0


class ForwardStore:
    """Files of one folder; several processes may use it at once.

    Args:
        folder: Made when the first graph is stored, readable by its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str, kind: str = FORWARD) -> Path | None:
        """Return the file of a graph, and note that it was used."""
        path = self._path(key, kind)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def put(self, key: str, content: bytes, kind: str = FORWARD) -> Path:
        """Store a graph whole or not at all, forget those used longest ago; return its file.

        Raises:
            OSError: The disk is full or the folder cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f".{key}.{secrets.token_hex(4)}.draft"
        try:
            draft.write_bytes(content)
            draft.replace(self._path(key, kind))
        finally:
            draft.unlink(missing_ok=True)
        self._forget()
        return self._path(key, kind)

    def _path(self, key: str, kind: str) -> Path:
        return self.folder / f"{key}{kind}"

    def _forget(self) -> None:
        found = []
        for path in self.folder.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process was faster
            if path.name.endswith((FORWARD, STEP)):
                found.append((status.st_mtime_ns, status.st_size, path))
            elif path.suffix == ".draft" and status.st_mtime < time.time() - _DRAFT_S:  # noqa: TID251 - files have that clock
                path.unlink(missing_ok=True)  # of a process that was killed
        kept_bytes = 0
        for place, (_, size, path) in enumerate(sorted(found, reverse=True)):
            kept_bytes += size
            if place and (place >= MAX_GRAPHS or kept_bytes > MAX_BYTES):
                path.unlink(missing_ok=True)
