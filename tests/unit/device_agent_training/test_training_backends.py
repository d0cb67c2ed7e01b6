import subprocess
import sys

import numpy as np
import pytest

from device_agent.core.backend import choose, needs_graph
from device_agent.service.ports import TrainingError, TrainingStoppedError
from device_agent.training import backends
from device_agent.training.backends import Trainers, installed
from device_agent.training.drill import DrillTrainer
from device_agent.training.onnx_trainer import OnnxTrainer
from device_agent.training.torch_trainer import TorchTrainer
from schemas.tasks import Requirements, Training

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it now fails
from device_agent.training.backends import Trainers, installed
from device_agent.service.ports import TrainingRequest
from learning.data.sources import load
from schemas.messages import TrainingPlan
from schemas.tasks import Training
from updates.layout import Layout
import numpy as np
layout, data = Layout.of({"w": (1000, 1000)}), load("digits")
plan = TrainingPlan(model="lenet5", input_shape=(1, 8, 8), classes=10, parameters=layout.size,
    layout_sha256=layout.digest, data="digits", training=Training(epochs=0), codec="int8")
request = TrainingRequest(plan, layout, np.ones(layout.size, np.float32), data, 1)
trainer = Trainers(installed()).of(plan, "drill")
result = trainer.train(request, lambda share: None, lambda: False)
print(result.num_examples, result.delta.shape, result.delta.any())
"""


def test_a_drill_answers_with_zeros_that_weigh_as_much_as_the_data(make_request):
    request = make_request(epochs=0)
    shares = []
    trainer = Trainers(installed()).of(request.plan, "drill")
    result = trainer.train(request, shares.append, lambda: False)
    assert not result.delta.any()
    assert result.delta.shape == request.parameters.shape
    assert result.delta.dtype == np.float32
    assert result.num_examples == 60
    assert shares == [1.0]


def test_a_drill_can_be_stopped(make_request):
    with pytest.raises(TrainingStoppedError):
        DrillTrainer().train(make_request(epochs=0), lambda _: None, lambda: True)


def test_a_drill_runs_where_importing_torch_fails():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1438 (1000000,) False"


def test_onnx_comes_before_torch_and_the_owner_may_allow_one_alone():
    assert installed() == ("onnx", "torch")
    assert installed("onnx") == ("onnx",)
    assert installed("torch") == ("torch",)


def test_each_backend_has_one_trainer_that_is_used_again(make_request):
    plan, trainers = make_request().plan, Trainers(installed(), threads=1)
    assert isinstance(trainers.of(plan, "onnx"), OnnxTrainer)
    assert isinstance(trainers.of(plan, "torch"), TorchTrainer)
    assert trainers.of(plan, "onnx") is trainers.of(plan, "onnx")
    with pytest.raises(TrainingError, match="'tpu' is not installed; there is onnx, torch"):
        trainers.of(plan, "tpu")


def test_what_is_not_installed_is_no_backend_and_the_refusal_says_so(monkeypatch, make_request):
    plan = make_request().plan
    monkeypatch.setattr(backends, "find_spec", lambda name: name == "onnxruntime" or None)
    assert installed() == ("onnx",)
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    assert installed() == ()
    with pytest.raises(TrainingError, match="'torch' is not installed; there is none"):
        Trainers(()).of(plan, "torch")


@pytest.mark.parametrize(
    ("backends_here", "asked", "has_graph", "chosen"),
    [
        (("onnx", "torch"), None, True, "onnx"),
        (("onnx", "torch"), None, False, "torch"),
        (("onnx", "torch"), "torch", True, "torch"),
        (("torch",), None, True, "torch"),
        (("onnx",), None, False, None),
        (("onnx",), "torch", True, None),
        ((), None, True, None),
    ],
)
def test_the_first_backend_that_can_do_the_job_is_chosen(
    make_request, backends_here, asked, has_graph, chosen
):
    plan = make_request(requires=Requirements(backend=asked)).plan
    assert choose(plan, backends_here, has_graph=has_graph) == chosen


def test_a_loss_of_the_graphs_own_is_nothing_for_torch(make_request):
    plan = make_request().plan
    own = plan.model_copy(update={"training": Training(loss="model")})
    assert choose(own, ("torch", "onnx"), has_graph=True) == "onnx"
    assert choose(own, ("torch",), has_graph=True) is None


def test_a_graph_is_needed_to_train_with_it_and_for_what_is_frozen_in_it(make_request):
    plan, frozen = make_request().plan, make_request(frozen=("1.*",)).plan
    assert needs_graph(plan, "onnx")
    assert not needs_graph(plan, "torch")
    assert needs_graph(frozen, "torch")
    assert not needs_graph(frozen, "drill")
