import subprocess
import sys

import numpy as np
import pytest

from device_agent.service.ports import TrainingError, TrainingStoppedError
from device_agent.training import backends
from device_agent.training.backends import installed, trainer_for
from device_agent.training.drill import DrillTrainer
from device_agent.training.torch_trainer import TorchTrainer
from schemas.tasks import Requirements

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it now fails
from device_agent.training.backends import trainer_for
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
result = trainer_for(plan).train(request, lambda share: None, lambda: False)
print(result.num_examples, result.delta.shape, result.delta.any())
"""


def test_a_drill_answers_with_zeros_that_weigh_as_much_as_the_data(make_request):
    request = make_request(epochs=0)
    shares = []
    result = trainer_for(request.plan).train(request, shares.append, lambda: False)
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


def test_the_installed_backend_trains_and_another_one_is_refused(make_request):
    assert isinstance(trainer_for(make_request().plan), TorchTrainer)
    named = make_request(requires=Requirements(backend="torch"))
    assert trainer_for(named.plan).backend == "torch"
    with pytest.raises(TrainingError, match="backend: 'tpu' is not installed; there is torch"):
        trainer_for(make_request(requires=Requirements(backend="tpu")).plan)


def test_without_torch_there_is_no_backend_and_the_refusal_says_so(monkeypatch, make_request):
    plan = make_request().plan
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    assert installed() == ()
    with pytest.raises(TrainingError, match="'torch' is not installed; there is none"):
        trainer_for(plan)
