"""``fedfleet demo``: one command, a whole fleet, its result, and nothing left behind."""

import json
import os
import signal
import time

import numpy as np
import onnxruntime
import psutil
import pytest
from safetensors.numpy import load_file

from learning.data.sources import load
from tests.support.fleet_programs import Program, fedfleet_command, run_verb

DEVICES = 8
START_S = 60.0
END_S = 30.0
PROMISED = {
    "rounds_committed",
    "updates_accepted",
    "accuracy",
    "seconds",
    "uplink_bytes",
    "downlink_bytes",
    "model_sha256",
}
#: The least fleet, for runs that end badly.
SMALL = ("--devices", "2", "--regions", "1", "--rounds", "50")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def started(tmp_path, out):
    """Yield a small demo in the middle of its task, and its log."""
    command = fedfleet_command("demo", *SMALL, "--out", str(out))
    demo = Program("demo", command, tmp_path / "demo.log")
    demo.start()
    wait_until(lambda: "round 1 committed" in demo.log, START_S, demo)
    yield demo
    demo.kill()


def wait_until(condition, within_s, demo):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, demo.tail
        assert demo.is_running, demo.tail
        time.sleep(0.05)


def processes_of(out):
    """Return the living processes whose command line names the run's folder or its state."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if process.pid != os.getpid() and any(str(out) in word for word in words):
            found.append(process)
    return found


def children_of(demo):
    return psutil.Process(demo.pid).children(recursive=True)


def assert_all_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    assert not alive, [process.cmdline() for process in alive]


@pytest.mark.slow
def test_the_default_demo_learns_and_leaves_its_result_in_a_folder(out):
    done = run_verb("demo", "--json", "--out", str(out), within_s=170)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() >= PROMISED
    print(f"\naccuracy {result['accuracy']:.4f} in {result['seconds']:.1f} s")  # noqa: T201 - seen with -s
    assert result["accuracy"] >= 0.93
    rounds, updates = result["rounds_committed"], result["updates_accepted"]
    assert rounds == result["submission"]["rounds"]
    assert updates == DEVICES * rounds
    assert result["uplink_bytes"] < 0.3 * updates * 4 * result["parameters"]
    assert f"round {rounds} committed" in done.stderr
    assert not processes_of(out)

    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    status = json.loads((out / "status.json").read_text())
    assert status["model_sha256"] == result["model_sha256"]
    assert len(status["history"]) == rounds
    arrays = load_file(out / "model.safetensors")
    assert sum(array.size for array in arrays.values()) == result["parameters"]
    assert {path.name for path in (out / "logs").iterdir()} >= {"broker.log", "central.log"}

    held_out = load("digits", train=False)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": held_out.x})
    accuracy = float(np.mean(logits.argmax(axis=1) == held_out.y))
    assert accuracy == pytest.approx(result["accuracy"], abs=0.005)


def test_ctrl_c_ends_the_whole_demo_and_its_exit_code_says_so(started, out):
    children = children_of(started)
    assert len(children) >= 5
    os.kill(started.pid, signal.SIGINT)
    assert started.wait(END_S) == 1
    assert_all_gone(children)
    assert "Aborted" in started.log
    assert "Traceback" not in started.log
    assert not (out / "status.json").exists()
    assert not processes_of(out)


def test_a_device_that_dies_ends_the_demo_with_the_reason_and_its_last_words(started, out):
    children = children_of(started)
    (device,) = [child for child in children if "device-2" in child.cmdline()]
    device.kill()
    assert started.wait(END_S) == 1
    assert_all_gone(children)
    assert "device-2 ended with signal 9; the last lines of" in started.log
    assert "job_changed" in started.log
    assert "Traceback" not in started.log
    assert not processes_of(out)


def test_a_demo_that_is_killed_takes_its_fleet_with_it(started, out):
    children = children_of(started)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait(END_S) == -signal.SIGKILL
    assert_all_gone(children)
    assert not processes_of(out)
