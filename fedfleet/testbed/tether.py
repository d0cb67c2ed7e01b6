"""Runs a command that ends when its parent does: ``tether.py PARENT_PID COMMAND ...``.

The kernel is asked to kill this process when the parent dies (Linux, PR_SET_PDEATHSIG in
prctl(2)); the request outlives execve, so the command carries it from its first instruction.
It is run as a file, isolated, and imports next to nothing: it stands in front of every process.
Elsewhere than on Linux it only runs the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tether(parent_pid: int) -> None:
    """Tie this process to its parent's life.

    Raises:
        OSError: The kernel refuses.
        SystemExit: The parent is gone already.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent_pid:
        raise SystemExit(1)


if __name__ == "__main__":
    tether(int(sys.argv[1]))
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (no shell is the point)
    except OSError as error:
        sys.exit(f"{sys.argv[2]}: {error.strerror}")
