"""Optimizers' states that go from one round of a task to the next, as files.

A state is named by the round that it was left by, and a round begins with the newest one before
it: done again after a crash, it begins with the same. Only the newest two of a task are kept, and
those of the task at work never make room for others.
"""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.core.job import JobKey
from transport.failpoints import failpoint
from transport.syncing import sync

F32 = NDArray[np.float32]

_ROUND_DIGITS = 10
_KEPT_A_TASK = 2


class OptimizerStates:
    """The states below one folder; the oldest tasks' go when it holds too much."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Use a folder, which is made when the first state comes; half a state in it is removed.

        Args:
            folder: Holds nothing else.
            max_bytes: Most bytes of all states; one of which two are larger is not kept at all.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        for torn in folder.glob("*.tmp"):
            torn.unlink(missing_ok=True)

    def load(self, key: JobKey, kind: str) -> F32 | None:
        """Return the state that the task's newest round before this one has left, or None.

        Args:
            key: The round that is about to begin.
            kind: What the state's form depends on; another kind's is not returned.
        """
        earlier = [path for number, path in self._of(key.task, kind) if number < key.round]
        try:
            return _read(earlier[-1]) if earlier else None
        except (OSError, ValueError):
            return None  # torn by a power cut: the round begins without one

    def save(self, key: JobKey, kind: str, state: F32) -> None:
        """Keep what a round has left, beside what it began with.

        Raises:
            OSError: It cannot be written.
        """
        if _KEPT_A_TASK * state.nbytes > self._max_bytes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_prefix(key.task, kind)}{key.round:0{_ROUND_DIGITS}d}.npy"
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                np.save(file, state, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            failpoint("device.state.written")
            temporary.replace(path)
            sync(self._folder)
        finally:
            temporary.unlink(missing_ok=True)
        failpoint("device.state.stored")
        self._trim(key, kind)

    def _trim(self, key: JobKey, kind: str) -> None:
        done = [path for number, path in self._of(key.task, kind) if number <= key.round]
        for path in done[:-_KEPT_A_TASK]:
            path.unlink(missing_ok=True)
        # The job may be done again: its update is not stored yet, so what it began with stays.
        own = set(done[-_KEPT_A_TASK:])
        newest_first = sorted(
            self._folder.glob("*.npy"),
            key=lambda path: (path in own, path.stat().st_mtime_ns),
            reverse=True,
        )
        total = 0
        for path in newest_first:
            total += path.stat().st_size
            if path not in own and total > self._max_bytes + io.DEFAULT_BUFFER_SIZE:
                path.unlink(missing_ok=True)

    def _of(self, task: str, kind: str) -> list[tuple[int, Path]]:
        """Return the states of a task by round, oldest first."""
        found = self._folder.glob(f"{_prefix(task, kind)}{'[0-9]' * _ROUND_DIGITS}.npy")
        return sorted((int(path.stem[-_ROUND_DIGITS:]), path) for path in found)


def _prefix(task: str, kind: str) -> str:
    return hashlib.sha256(f"{task}|{kind}".encode()).hexdigest() + "-"


def _read(path: Path) -> F32 | None:
    with path.open("rb") as file:
        state = np.lib.format.read_array(file, allow_pickle=False)
    is_state = state.dtype == np.float32 and state.ndim == 1 and np.isfinite(state).all()
    return state if is_state else None
