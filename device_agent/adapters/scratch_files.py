"""Large results that the training thread leaves on disk until the loop takes them over."""

import os
from collections.abc import Callable
from pathlib import Path

from schemas.limits import MIB


def write_durably(path: Path, values: memoryview, on_written: Callable[[], None]) -> None:
    """Write bytes in pieces and wait for the disk; nothing of a failed file stays.

    Args:
        path: Where to; a ``*.tmp`` that a kill leaves there goes with the next start.
        values: What to write.
        on_written: Called before the disk is waited for.

    Raises:
        OSError: They cannot be written.
    """
    try:
        with path.open("wb") as file:
            for start in range(0, len(values), MIB):
                file.write(values[start : start + MIB])
            file.flush()
            on_written()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
