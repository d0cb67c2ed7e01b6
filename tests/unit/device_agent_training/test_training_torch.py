import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from device_agent.service.ports import TrainingError, TrainingStoppedError
from device_agent.training.torch_trainer import TorchTrainer
from learning.data.dataset import Dataset
from learning.models import parameters, registry


def train(request, progress=lambda _: None, should_stop=lambda: False, **settings):
    return TorchTrainer(**settings).train(request, progress, should_stop)


def test_training_lowers_the_loss(make_request):
    result = train(make_request(epochs=20, learning_rate=0.1))
    first = train(make_request(epochs=1, learning_rate=0.1))
    assert result.metrics["loss"] < first.metrics["loss"]
    assert result.metrics["accuracy"] > 0.8
    assert result.delta.dtype == np.float32
    assert result.num_examples == 60


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_same_job_gives_the_same_bits_and_another_round_others(make_request, optimizer):
    first, again, other = (
        train(make_request(epochs=3, optimizer=optimizer, round_seed=seed)).delta.tobytes()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_the_seed_of_the_task_changes_the_order_too(make_request):
    one, two = (train(make_request(batch_size=4, seed=seed)).delta for seed in (0, 1))
    assert one.tobytes() != two.tobytes()


def dropout_model(input_shape, classes):
    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(input_shape[0], classes))


def renamed(request, **changes):
    plan = request.plan.model_copy(update=changes)
    return dataclasses.replace(request, plan=plan)


def test_a_model_with_dropout_repeats_bit_for_bit_and_leaves_the_generator_alone(make_request):
    request = renamed(make_request("softmax", {}), model="own")
    keys = {"1.weight": (3, 4), "1.bias": (3,)}
    request = dataclasses.replace(request, layout=type(request.layout).of(keys))
    before = torch.random.get_rng_state()
    allowed = {"own": f"{__name__}:dropout_model"}
    deltas = [train(request, allow_list=allowed).delta.tobytes() for _ in range(2)]
    assert deltas[0] == deltas[1]
    assert torch.equal(torch.random.get_rng_state(), before)


def reference_steps(request, optimizer, after_backward=lambda model, start: None):
    """Full-batch training written out by hand; the order of examples does not matter to it."""
    plan, data = request.plan, request.data
    model = registry.build(plan.model, plan.model_params, plan.input_shape, plan.classes)
    parameters.write(model, request.layout.unflatten(request.parameters))
    start = [parameter.detach().clone() for parameter in model.parameters()]
    steps = optimizer(model.parameters())
    for _ in range(plan.training.epochs):
        steps.zero_grad()
        logits = model(torch.from_numpy(data.x))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.y)).backward()
        after_backward(model, start)
        steps.step()
    return request.layout.flatten(parameters.read(model)) - request.parameters


def add_proximal(model, start):
    for parameter, origin in zip(model.parameters(), start, strict=True):
        parameter.grad += 0.7 * (parameter.detach() - origin)


def clip(model, start):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)


@pytest.mark.parametrize(
    ("settings", "optimizer", "extra"),
    [
        ({"momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=0.1), lambda *_: None),
        ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda *_: None),
        ({"optimizer": "adam"}, lambda p: torch.optim.Adam(p, lr=0.1), lambda *_: None),
        (
            {"momentum": 0.0, "proximal_mu": 0.7},
            lambda p: torch.optim.SGD(p, lr=0.1),
            add_proximal,
        ),
        (
            {"momentum": 0.0, "gradient_clip_norm": 0.05},
            lambda p: torch.optim.SGD(p, lr=0.1),
            clip,
        ),
    ],
    ids=["sgd", "momentum", "adam", "fedprox", "clipping"],
)
def test_each_setting_does_what_its_formula_says(make_request, settings, optimizer, extra):
    request = make_request(epochs=5, batch_size=60, learning_rate=0.1, **settings)
    expected = reference_steps(request, optimizer, extra)
    np.testing.assert_allclose(train(request).delta, expected, atol=2e-5)


def test_a_strong_proximal_term_keeps_the_update_small(make_request):
    free = train(make_request(epochs=10, momentum=0.0))
    held = train(make_request(epochs=10, momentum=0.0, proximal_mu=10.0))
    assert np.linalg.norm(held.delta) < 0.5 * np.linalg.norm(free.delta)


def test_steps_count_distinct_examples(make_request):
    assert train(make_request(steps=2, batch_size=16)).num_examples == 32
    assert train(make_request(steps=40, batch_size=16)).num_examples == 60


def test_progress_rises_to_one(make_request):
    shares = []
    train(make_request(epochs=7, batch_size=9), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert 5 <= len(shares) <= 40


def test_training_stops_after_the_step_at_which_it_is_told_to(make_request):
    asked = []
    with pytest.raises(TrainingStoppedError, match="stopped after 3 of 60 steps"):
        train(make_request(batch_size=1), should_stop=lambda: asked.append(1) or len(asked) == 3)


def test_a_diverging_job_fails_with_the_setting_to_change(make_request):
    with pytest.raises(TrainingError, match="learning_rate"):
        train(make_request(epochs=100, learning_rate=100.0, params={"hidden": (50, 50)}))


def test_the_given_parameters_are_not_written_to(make_request):
    request = make_request()
    before = request.parameters.tobytes()
    train(request)
    assert request.parameters.tobytes() == before


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"model": "absent"}, "'absent' is not known"),
        ({"model_params": {"hidden": (9,)}}, "parameters"),
        ({"model_params": {"hidden": (60_000, 60_000)}}, "at most"),
        ({"input_shape": (5,)}, r"the job needs \(5,\)"),
        ({"classes": 4}, "the job needs .* and 4"),
    ],
)
def test_a_job_that_does_not_fit_is_refused_with_the_reason(make_request, changes, cause):
    with pytest.raises(TrainingError, match=cause):
        train(renamed(make_request(), **changes))


def test_a_job_without_examples_is_refused(make_request):
    request = make_request()
    empty = Dataset(request.data.x[:0], request.data.y[:0], 3, "blobs")
    with pytest.raises(TrainingError, match="no example"):
        train(dataclasses.replace(request, data=empty))


def wrong_output(input_shape, classes):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], classes), torch.nn.Flatten(0))


def test_a_model_whose_output_is_not_logits_fails_by_name(make_request):
    request = renamed(make_request("softmax", {}), model="own")
    layout = type(request.layout).of({"0.weight": (3, 4), "0.bias": (3,)})
    request = dataclasses.replace(request, layout=layout)
    with pytest.raises(TrainingError, match=r"model own: "):
        train(request, allow_list={"own": f"{__name__}:wrong_output"})


def test_torch_is_not_imported_before_the_first_job():
    code = (
        "import sys; from device_agent.training.backends import installed, Trainers, TorchTrainer;"
        "TorchTrainer(); print(installed(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('onnx', 'torch') False"
