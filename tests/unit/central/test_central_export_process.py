import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import onnxruntime
import psutil
import pytest

from central.adapters import export_process
from central.adapters.export_process import ExportProcess, ExportProcessError
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from updates.layout import Layout
from updates.model_file import encode_model

DIGITS = DataDescription(name="digits", shape=(1, 8, 8), classes=10, examples=1)
TASK = TaskSubmission(model="softmax", rounds=1)


def test_a_model_is_written_by_a_process_of_its_own(tmp_path):
    layout = Layout.of({"1.bias": (10,), "1.weight": (10, 64)})
    vector = np.arange(layout.size, dtype=np.float32)
    source, target = tmp_path / "model", tmp_path / "model.onnx"
    source.write_bytes(encode_model(layout, vector))
    ExportProcess({}, tmp_path / "forward").write(TASK, DIGITS, source, target)
    session = onnxruntime.InferenceSession(target)
    (logits,) = session.run(None, {"input": np.zeros((3, 1, 8, 8), np.float32)})
    np.testing.assert_array_equal(logits, np.tile(vector[:10], (3, 1)))


def test_what_cannot_be_written_is_told_by_its_last_word(tmp_path):
    with pytest.raises(ExportProcessError, match=r"exit code 1: .*No such file"):
        ExportProcess({}, tmp_path).write(TASK, DIGITS, tmp_path / "none", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_central_that_stops_waits_for_no_export(tmp_path, monkeypatch):
    monkeypatch.setattr(export_process, "_COMMAND", ("sleep", "600"))
    exporter = ExportProcess({}, tmp_path)
    failures = []

    def write():
        try:
            exporter.write(TASK, DIGITS, tmp_path / "a", tmp_path / "b")
        except ExportProcessError as error:
            failures.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    until = time.monotonic() + 10
    while exporter._running is None and time.monotonic() < until:
        time.sleep(0.01)
    exporter.close()
    thread.join(10)
    assert failures == ["exit code -9: "]
    assert isinstance(exporter._running, subprocess.Popen)
    with pytest.raises(ExportProcessError, match="central stops"):
        exporter.write(TASK, DIGITS, tmp_path / "a", tmp_path / "b")


PARENT = """
import sys
from pathlib import Path
from central.adapters.export_process import ExportProcess
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
folder = Path(sys.argv[1])
data = DataDescription(name="digits", shape=(64,), classes=10, examples=1)
ExportProcess({}, folder).write(
    TaskSubmission(model="mlp"), data, folder / "pipe", folder / "model.onnx"
)
"""


def test_the_process_ends_when_central_is_killed(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # it would wait for ever for a model from there
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    try:
        child = wait_for(lambda: next(iter(psutil.Process(parent.pid).children()), None))
        writer = wait_for(lambda: opened(tmp_path / "pipe"))
        parent.kill()
        parent.wait(10)
        assert wait_for(lambda: not is_running(child), within_s=5.0)
    finally:
        parent.kill()
        with suppress(psutil.NoSuchProcess):
            child.kill()
        os.close(writer)


def opened(pipe):
    """Open a pipe to write, which only works once another process reads from it."""
    with suppress(OSError):
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


def wait_for(condition, within_s=30.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    return None


def is_running(process):
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
