"""These start real processes: that none is left behind can be seen in no other way."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fedfleet.testbed.plan import Process
from fedfleet.testbed.processes import ProcessEndedError, Processes, last_lines

PATIENCE_S = 10.0
SLEEP = "import time; time.sleep(600)"
#: Ignores a SIGTERM.
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)"
)
#: Starts a child of its own, which a signal to the parent alone would not reach.
NESTED = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', "
    f"{SLEEP!r}]); print(child.pid, flush=True); time.sleep(600)"
)
#: A testbed as a program of its own: starts dummies, tells their pids, then waits.
TESTBED = """
import sys, time
from pathlib import Path
from fedfleet.testbed.plan import Process
from fedfleet.testbed.processes import Processes, stopped_by_sigterm
with stopped_by_sigterm(), Processes(Path(sys.argv[1])) as processes:
    for number in range(3):
        dummy = Process(f"dummy-{number}", (sys.executable, "-c", "import time; time.sleep(600)"))
        print(processes.start(dummy).child.pid, flush=True)
    print("started", flush=True)
    time.sleep(600)
"""


def python(name, code):
    return Process(name, (sys.executable, "-c", code))


def wait_until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_gone(pid):
    """Whether no process of this pid runs; one that only waits to be reaped does not run."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def has_begun(pid):
    """Whether the dummy itself runs, and no longer the interpreter that tethered it."""
    try:
        return "time.sleep(600)" in " ".join(psutil.Process(pid).cmdline()[2:3])
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def testbed(tmp_path):
    """A testbed in a process of its own and the pids of its dummies."""
    program = subprocess.Popen(
        [sys.executable, "-c", TESTBED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    pids = [int(line) for line in iter(program.stdout.readline, "started\n")]
    wait_until(lambda: all(has_begun(pid) for pid in pids))
    yield program, pids
    program.kill()
    program.wait()
    program.stdout.close()
    for pid in pids:
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_testbed_leaves_no_process_behind(testbed):
    program, pids = testbed
    assert not any(is_gone(pid) for pid in pids)
    program.kill()
    wait_until(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_testbed_that_is_asked_to_end_stops_everything(testbed, number, code):
    program, pids = testbed
    program.send_signal(number)
    returncode = program.wait(PATIENCE_S)
    assert all(is_gone(pid) for pid in pids)
    assert returncode == code


def test_an_error_inside_stops_everything(tmp_path):
    pids = []

    def run():
        with Processes(tmp_path) as processes:
            pids.extend(processes.start(python(f"p{n}", SLEEP)).child.pid for n in range(2))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        run()
    assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    with Processes(tmp_path) as processes:
        running = processes.start(python("stubborn", STUBBORN))
        wait_until(lambda: running.log.read_text() == "ready\n")
        processes.stop(timeout_s=0.2)
    assert running.child.returncode == -signal.SIGKILL


def test_grandchildren_end_with_their_group(tmp_path):
    with Processes(tmp_path) as processes:
        running = processes.start(python("nested", NESTED))
        wait_until(lambda: running.log.read_text().endswith("\n"))
        grandchild = int(running.log.read_text())
        assert not is_gone(grandchild)
    wait_until(lambda: is_gone(grandchild))


def test_an_ended_process_is_told_with_its_last_words(tmp_path):
    code = "import sys; print('starting'); print('port in use', file=sys.stderr); sys.exit(3)"
    with Processes(tmp_path) as processes:
        running = processes.start(python("broker", code))
        running.child.wait(PATIENCE_S)
        with pytest.raises(ProcessEndedError, match="broker ended with exit code 3") as caught:
            processes.check()
    assert caught.value.name == "broker"
    assert "port in use" in str(caught.value)


def test_a_signal_is_told_as_one(tmp_path):
    with Processes(tmp_path) as processes:
        running = processes.start(python("device-1", SLEEP))
        processes.check()
        running.child.kill()
        running.child.wait(PATIENCE_S)
        with pytest.raises(ProcessEndedError, match="device-1 ended with signal 9"):
            processes.check()


def test_a_program_that_does_not_exist_is_told(tmp_path):
    with Processes(tmp_path) as processes:
        running = processes.start(Process("broker", ("no-such-program",)))
        running.child.wait(PATIENCE_S)
        with pytest.raises(ProcessEndedError, match="no-such-program"):
            processes.check()


def test_a_process_gets_its_own_environment(tmp_path):
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    with Processes(tmp_path) as processes:
        process = Process("p", (sys.executable, "-c", code), {"OMP_NUM_THREADS": "1"})
        running = processes.start(process)
        running.child.wait(PATIENCE_S)
    assert running.log.read_text() == "1\n"


def test_only_the_end_of_a_long_log_is_shown(tmp_path):
    log = tmp_path / "long.log"
    log.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert last_lines(log, 2) == "    line 4998\n    line 4999"


def test_an_empty_and_an_absent_log_are_said_to_be_so(tmp_path):
    (tmp_path / "empty.log").touch()
    assert "wrote nothing" in last_lines(tmp_path / "empty.log")
    assert "No such file" in last_lines(tmp_path / "absent.log")


def test_a_process_that_was_killed_on_purpose_is_missed_only_when_it_should_run(tmp_path):
    with Processes(tmp_path) as processes:
        processes.start(python("first", SLEEP))
        processes.start(python("second", SLEEP))
        processes.kill("first")
        processes.check(down={"first"})
        with pytest.raises(ProcessEndedError, match="first ended with signal 9"):
            processes.check()
        again = processes.start(python("first", SLEEP))
        processes.check()
        assert again.child.poll() is None
    assert is_gone(again.child.pid)


def test_a_process_is_stopped_and_continued(tmp_path):
    with Processes(tmp_path) as processes:
        child = psutil.Process(processes.start(python("one", SLEEP)).child.pid)
        wait_until(lambda: has_begun(child.pid))
        processes.send("one", signal.SIGSTOP)
        wait_until(lambda: child.status() == psutil.STATUS_STOPPED)
        processes.send("one", signal.SIGCONT)
        wait_until(lambda: child.status() != psutil.STATUS_STOPPED)
