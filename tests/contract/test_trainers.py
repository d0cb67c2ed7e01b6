"""What every trainer promises, asked of each; and that all of them learn the same."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from device_agent.service.ports import TrainingError, TrainingStoppedError
from device_agent.training.onnx_trainer import OnnxTrainer
from device_agent.training.torch_trainer import TorchTrainer
from learning.data.dataset import Dataset
from tests.support.training_jobs import blobs, make_job

TRAINERS = {"onnx": OnnxTrainer, "torch": TorchTrainer}
SETTINGS = [
    {"momentum": 0.0},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"optimizer": "adam", "learning_rate": 0.01},
    {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.1},
    {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    {"momentum": 0.9, "proximal_mu": 0.7},
    {"momentum": 0.0, "gradient_clip_norm": 0.05},
    {"loss": "bce"},
    {"loss": "mse"},
    {"loss": "huber"},
    {"frozen": ("1.*",)},
]


@pytest.fixture
def make_request(tmp_path):
    return partial(make_job, tmp_path)


@pytest.fixture(params=TRAINERS.values(), ids=TRAINERS.keys())
def train(request):
    """Return a function that trains a request."""

    def trained(job, progress=lambda _: None, should_stop=lambda: False):
        return request.param().train(job, progress, should_stop)

    return trained


def test_training_lowers_the_loss(train, make_request):
    result = train(make_request(epochs=20, learning_rate=0.1))
    first = train(make_request(epochs=1, learning_rate=0.1))
    assert result.metrics["loss"] < first.metrics["loss"]
    assert result.metrics["accuracy"] > 0.8
    assert result.delta.dtype == np.float32
    assert result.num_examples == 60


def test_the_same_job_gives_the_same_bits_and_another_round_others(train, make_request):
    first, again, other = (
        train(make_request(epochs=3, batch_size=8, round_seed=seed)).delta.tobytes()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_parameters_given_are_not_written_to(train, make_request):
    job = make_request()
    before = job.parameters.tobytes()
    train(job)
    assert job.parameters.tobytes() == before


def test_progress_rises_to_one(train, make_request):
    shares = []
    train(make_request(epochs=7, batch_size=9), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_training_stops_after_the_step_at_which_it_is_told_to(train, make_request):
    asked = []
    with pytest.raises(TrainingStoppedError, match="stopped after 3 of 60 steps"):
        train(make_request(batch_size=1), should_stop=lambda: asked.append(1) or len(asked) == 3)


def test_a_diverging_job_fails_with_the_setting_to_change(train, make_request):
    job = make_request(epochs=100, learning_rate=100.0, params={"hidden": (50, 50)})
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+; lower learning_"):
        train(job)


def test_a_job_without_examples_or_with_other_data_is_refused(train, make_request):
    job = make_request()
    empty = Dataset(job.data.x[:0], job.data.y[:0], 3, "blobs")
    with pytest.raises(TrainingError, match="no example"):
        train(dataclasses.replace(job, data=empty))
    with pytest.raises(TrainingError, match=r"the job needs \(4,\) and 3"):
        train(dataclasses.replace(job, data=blobs(shape=(5,))))


def test_parameters_that_are_not_of_the_layout_are_refused(train, make_request):
    job = make_request()
    with pytest.raises(TrainingError, match="the layout has"):
        train(dataclasses.replace(job, parameters=job.parameters[:-1]))


def test_a_loss_without_classes_has_no_accuracy(train, make_request):
    assert train(make_request(loss="mse")).metrics.keys() == {"loss"}
    assert train(make_request(loss="bce")).metrics.keys() == {"loss", "accuracy"}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_state_that_is_kept_makes_two_rounds_as_one(train, make_request, optimizer):
    """Full batches, so that the order of the examples, which differs by round, is nothing."""
    asked = {"optimizer": optimizer, "batch_size": 60, "learning_rate": 0.05, "keep_state": True}
    whole = train(make_request(epochs=6, **asked))
    half = make_request(epochs=3, **asked)
    first = train(half)
    moved = dataclasses.replace(half, parameters=half.parameters + first.delta, state=first.state)
    both = first.delta + train(moved).delta
    np.testing.assert_allclose(both, whole.delta, atol=2e-6)
    fresh = first.delta + train(dataclasses.replace(moved, state=None)).delta
    assert np.abs(fresh - whole.delta).max() > 1e-3


def test_a_state_is_given_back_only_to_who_asks_for_it(train, make_request):
    assert train(make_request()).state is None
    assert train(make_request(keep_state=True)).state is not None
    assert train(make_request(keep_state=True, momentum=0.0)).state is None


def test_a_state_of_another_size_is_not_used(train, make_request):
    job = make_request(keep_state=True)
    odd = dataclasses.replace(job, state=np.ones(3, np.float32))
    assert train(odd).delta.tobytes() == train(job).delta.tobytes()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_all_trainers_learn_the_same_in_the_same_order(make_request, settings):
    job = make_request(epochs=3, batch_size=16, **settings)
    onnx, torch = (
        trainer().train(job, lambda _: None, lambda: False) for trainer in TRAINERS.values()
    )
    assert np.linalg.norm(onnx.delta) > 1e-3
    scale = np.abs(onnx.delta).max()
    np.testing.assert_allclose(onnx.delta, torch.delta, atol=2e-5 * max(1.0, scale))
    assert onnx.num_examples == torch.num_examples
    assert onnx.metrics.keys() == torch.metrics.keys()
    for name, value in onnx.metrics.items():
        assert value == pytest.approx(torch.metrics[name], abs=2e-5)
