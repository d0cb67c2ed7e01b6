"""A disk that is full while a model is built: that is said as what it is, and nothing is lost."""

import errno
import resource
import subprocess

import numpy as np
import pytest

from central.adapters.export_process import ExportProcess
from central.modeling import process
from central.modeling.forward_store import ForwardStore
from central.modeling.modeler import GraphModeler
from central.modeling.requests import ModelRequest
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission, Training
from transport.database import is_storage_failure
from updates.layout import Layout
from updates.model_file import encode_model

DATA = DataDescription(name="blobs", shape=(64,), classes=10, examples=9)
REQUEST = ModelRequest(model="softmax", params={}, shape=(64,), classes=10, seed=0)
TASK = TaskSubmission(model="softmax")
SMALL = 1024


@pytest.fixture
def small_files(monkeypatch):
    """Let processes that are started write no file larger than ``SMALL``."""
    start = subprocess.Popen

    def limited(*args, **more):
        bounds = (SMALL, SMALL)
        process = start(*args, **more)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, bounds)
        return process

    monkeypatch.setattr(subprocess, "Popen", limited)


def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_preparation_without_space_may_be_tried_again(tmp_path, small_files):
    with pytest.raises(OSError, match=r"No space left|File too large") as caught:
        process.prepare(REQUEST, Training(), cache=tmp_path / "cache", scratch=scratch(tmp_path))
    assert is_storage_failure(caught.value)


def test_a_graph_for_the_evaluation_without_space_may_be_tried_again(tmp_path, small_files):
    with pytest.raises(OSError, match="File too large") as caught:
        GraphModeler({}, (), tmp_path / "cache").forward(REQUEST)
    assert is_storage_failure(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_an_export_without_space_may_be_tried_again(tmp_path, small_files):
    layout = Layout.of({"1.bias": (10,), "1.weight": (10, 64)})
    source = tmp_path / "model"
    source.write_bytes(encode_model(layout, np.zeros(layout.size, np.float32)))
    with pytest.raises(OSError, match="File too large") as caught:
        ExportProcess({}, tmp_path / "cache").write(TASK, DATA, source, tmp_path / "model.onnx")
    assert is_storage_failure(caught.value)


def test_a_cache_that_cannot_be_written_costs_no_task(tmp_path):
    (tmp_path / "cache").write_bytes(b"a file in the way")
    modeler = GraphModeler({}, (), tmp_path / "cache")
    prepared = modeler.prepare(TASK, DATA, scratch(tmp_path))
    assert prepared.layout.size == 650
    assert prepared.graph is not None


def test_a_step_that_finds_no_space_in_the_cache_costs_no_task(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ForwardStore, "put", refuse)
    modeler = GraphModeler({}, (), tmp_path / "cache")
    assert modeler.prepare(TASK, DATA, scratch(tmp_path)).graph is not None


def test_another_fault_of_the_process_is_none_of_the_disk(tmp_path):
    with pytest.raises(process.PrepareProcessError, match="exit code 1"):
        process.prepare(
            REQUEST, Training(), cache=tmp_path / "cache", scratch=tmp_path / "not there"
        )
