"""How long building a model may take: one setting; the CPU's limit is for gates alone."""

import os
import resource
import subprocess
import sys

import pytest

from central.modeling import process
from central.modeling.limits import ProcessLimits
from central.modeling.modeler import GraphModeler
from central.modeling.process import PrepareProcessError
from central.modeling.requests import ModelRequest, PrepareRequest
from central.modeling.unsafe import UnsafeModelError
from central.settings import CentralSettings
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission, Training
from tests.support.onnx_files import write_linear

DATA = DataDescription(name="blobs", shape=(4,), classes=3, examples=9)

#: Does what the request says, but prints the limit on CPU time where building would begin.
LOOKING = """
import resource, sys
from central.modeling import preparing, trainable
from central.modeling.requests import Outcome

def look(request, key, forward):
    print(resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_AS)[0])
    return Outcome(key=key)

trainable.write_trainable = look
preparing.main()
"""


@pytest.fixture
def own_file(tmp_path):
    return write_linear(tmp_path / "theirs.onnx")


def request_for(path):
    return ModelRequest(model="theirs", params={}, shape=(4,), classes=3, seed=0, target=str(path))


def test_the_cpu_limit_of_a_file_ends_with_its_gates_and_that_of_memory_does_not(
    own_file, tmp_path
):
    request = PrepareRequest(
        parent=os.getpid(),
        model=request_for(own_file),
        training=Training(),
        wants_graph=True,
        cache=str(tmp_path / "cache"),
        scratch=str(tmp_path),
        limits=ProcessLimits(memory_bytes=3 << 30, cpu_s=60),
    )
    done = subprocess.run(
        [sys.executable, "-c", LOOKING],
        input=request.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    free = resource.getrlimit(resource.RLIMIT_CPU)[1]
    assert done.stdout.split() == [str(free), str(3 << 30)]


def test_a_file_whose_gates_take_too_long_is_refused_and_the_setting_is_named(own_file, tmp_path):
    limits = ProcessLimits(memory_bytes=3 << 30, cpu_s=0)
    with pytest.raises(UnsafeModelError, match="prepare_timeout_s") as caught:
        process.prepare(
            request_for(own_file),
            Training(),
            cache=tmp_path / "cache",
            scratch=tmp_path,
            limits=limits,
        )
    assert caught.value.gate == "time"


@pytest.mark.parametrize(("timeout_s", "cpu_s"), [(900.0, 300), (3600.0, 1200), (0.5, 1)])
def test_the_gates_may_take_a_third_of_the_time(own_file, timeout_s, cpu_s):
    assert process._limits_for(request_for(own_file), timeout_s).cpu_s == cpu_s


def test_a_model_that_takes_longer_than_the_setting_says_is_given_up_by_its_name(tmp_path):
    modeler = GraphModeler({}, (), tmp_path / "cache", 0.01)
    with pytest.raises(
        PrepareProcessError, match=r"not built within 0.01 s \(prepare_timeout_s\)"
    ):
        modeler.prepare(TaskSubmission(model="softmax"), DATA, tmp_path)


def test_the_setting_comes_from_flag_environment_and_file(tmp_path, monkeypatch):
    assert CentralSettings.load().prepare_timeout_s == process.TIMEOUT_S
    file = tmp_path / "central.toml"
    file.write_text("prepare_timeout_s = 60\n")
    assert CentralSettings.load(file).prepare_timeout_s == 60
    monkeypatch.setenv("FEDFLEET_PREPARE_TIMEOUT_S", "70")
    assert CentralSettings.load(file).prepare_timeout_s == 70
    assert CentralSettings.load(file, prepare_timeout_s=80.0).prepare_timeout_s == 80
