"""One program a state directory: a lock that the kernel gives back however the program ends."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

_NAME = "lock"


class StateLockedError(Exception):
    """Another running program owns the state directory.

    Attributes:
        state_dir: The directory.
        holder: What the owner has written of itself: its process id.
    """

    def __init__(self, state_dir: Path, holder: str) -> None:
        super().__init__(
            f"state_dir: {state_dir} is in use by process {holder or 'unknown'}; "
            "stop that one first, or give this one a directory of its own (E_FENCED)"
        )
        self.state_dir = state_dir
        self.holder = holder


class StateLock:
    """Owns a state directory while the context lasts; the file stays, only the lock counts.

    It is flock(2): file systems that share it between machines honour it only if they say so.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock; the directory is created when it is missing.

        Raises:
            StateLockedError: Another program has it.
        """
        self._state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._state_dir / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise StateLockedError(self._state_dir, holder) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
