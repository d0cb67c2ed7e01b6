"""A terminal that goes away while a machine is set up."""

import subprocess
import sys

_SETS_UP = """
import os, signal, sys
from fedfleet.machine_setup import terminal
terminal.outlive()
sys.stdin.read()
os.kill(os.getpid(), signal.SIGHUP)
for step in range(3):
    terminal.say(f"step {step}")
os._exit(7)
"""


def test_work_goes_on_when_the_connection_breaks():
    command = [sys.executable, "-c", _SETS_UP]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stderr.close()
    process.stdin.close()
    assert process.wait(timeout=30) == 7


def test_steps_are_told_while_somebody_listens():
    done = subprocess.run(
        [sys.executable, "-c", _SETS_UP], input=b"", capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (7, b"step 0")
