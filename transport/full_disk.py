"""How a process that was started for some work says that a disk is full: it is tried again."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from transport.database import is_storage_failure

#: Exit code; the process's words may have found no place on that disk.
NO_SPACE = os.EX_CANTCREAT


@contextmanager
def told_by_exit_code() -> Iterator[None]:
    """End this process with ``NO_SPACE`` once something finds no space on a disk."""
    try:
        yield
    except OSError as error:
        if not is_storage_failure(error):
            raise
        with suppress(OSError):
            os.write(2, f"{error}\n".encode(errors="replace"))
        os._exit(NO_SPACE)  # flushing a full stderr would change the code


def no_space(said: str) -> OSError:
    """Return the error for the process that waits.

    Args:
        said: The last word of the process that ended.
    """
    return OSError(errno.ENOSPC, said or os.strerror(errno.ENOSPC))
