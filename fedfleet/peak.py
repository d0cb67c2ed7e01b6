"""The most memory that this process has held."""

import re
import resource
import sys
from pathlib import Path

_KIB = 1024


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far.

    On Linux from ``/proc``: ``getrusage`` there also counts the process that this one was forked
    from. Elsewhere there is only ``getrusage``.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * _KIB
    except (OSError, IndexError):
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * _KIB
