"""Disks that a test can fill: a small tmpfs, as root; a limit on file sizes, as anybody."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import psutil
import pytest

from schemas.limits import MIB
from tests.support.fleet_programs import Program

_FILLER = "filler"


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self._path)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Leave not one byte."""
        with (self._path / _FILLER).open("ab", buffering=0) as file:
            block = b"\0" * MIB
            while block:
                block = block if _is_written(file, block) else block[: len(block) // 2]
        assert self.free_bytes == 0

    def free(self) -> None:
        """Give all of it back."""
        (self._path / _FILLER).unlink()


def _is_written(file: FileIO, block: bytes) -> bool:
    try:
        return file.write(block) == len(block)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs on a directory; skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a tmpfs")
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def no_file_above(program: Program, size_bytes: int) -> Iterator[None]:
    """Let a running program write no byte beyond ``size_bytes`` of any file."""
    process = psutil.Process(program.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, before)
