"""A state directory has one owner at a time, and a dead one owns nothing."""

import os
import subprocess
import sys

import pytest

from transport.state_lock import StateLock, StateLockedError

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom transport.state_lock import StateLock\n"
    "with StateLock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def test_the_second_owner_is_refused_and_told_who_the_first_is(tmp_path):
    with (
        StateLock(tmp_path / "deep" / "state"),
        pytest.raises(StateLockedError, match=f"process {os.getpid()}") as raised,
        StateLock(tmp_path / "deep" / "state"),
    ):
        pass
    assert raised.value.holder == str(os.getpid())


def test_it_can_be_taken_again_once_it_was_given_back(tmp_path):
    for _ in range(2):
        with StateLock(tmp_path):
            pass


def test_a_killed_owner_owns_nothing(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(StateLockedError, match=f"process {child.pid}"), StateLock(tmp_path):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with StateLock(tmp_path):
        pass
