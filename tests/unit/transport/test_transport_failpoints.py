"""Failpoints: armed by one variable, counted, and nothing at all when nothing is armed."""

import errno
import signal
import subprocess
import sys

import pytest

from transport import failpoints
from transport.failpoints import VARIABLE, Armed, FailpointError, arm, arm_from, failpoint


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm(None)


def test_without_the_variable_nothing_is_armed():
    arm_from({})
    assert failpoints._hook is None
    failpoint("loop.committed")


def test_a_hook_hears_every_name():
    heard = []
    arm(heard.append)
    failpoint("a.b")
    failpoint("c.d")
    assert heard == ["a.b", "c.d"]


def test_only_the_nth_visit_of_the_named_place_acts():
    arm_from({VARIABLE: "a.b:2:nospace"})
    failpoint("a.b")
    failpoint("c.d")
    with pytest.raises(OSError, match="No space") as raised:
        failpoint("a.b")
    assert raised.value.errno == errno.ENOSPC
    failpoint("a.b")


def test_kill_ends_the_process_at_once():
    script = (
        "from transport.failpoints import arm_from, failpoint; import os\n"
        "arm_from(os.environ)\nfailpoint('x.y')\nprint('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={VARIABLE: "x.y:1:kill", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a.b", "name:nth:action"),
        (":1:kill", "name:nth:action"),
        ("a.b:1:kill:more", "name:nth:action"),
        ("a.b:0:kill", "nth"),
        ("a.b:x:kill", "nth"),
        ("a.b:1:explode", "action"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(text, part):
    with pytest.raises(FailpointError, match=part):
        Armed.parse(text)
