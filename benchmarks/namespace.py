"""A network of one's own, so that the loopback counters tell of this program and its children.

Linux lets a program have one without privileges (user namespaces, unshare(1)); where it does not,
the counters include whatever else runs on the machine.
"""

import os
import shutil
import subprocess
import sys

_ENTERED = "FEDFLEET_BENCH_NETWORK"
_UP = "ip link set lo up"


def enter_own_network(arguments: tuple[str, ...]) -> None:
    """Run Python again, in a new network namespace, in place of this process; once.

    Args:
        arguments: Of the Python interpreter.
    """
    if os.environ.get(_ENTERED) or not _is_possible():
        return
    script = f'{_UP} && exec "$0" "$@"'
    argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, sys.executable]
    os.environ[_ENTERED] = "1"
    os.execvp("unshare", [*argv, *arguments])


def has_own_network() -> bool:
    """Tell whether the loopback counters are this program's alone."""
    return os.environ.get(_ENTERED) == "1"


def _is_possible() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    probe = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", _UP]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0
