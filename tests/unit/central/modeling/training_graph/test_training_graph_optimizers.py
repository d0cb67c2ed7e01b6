"""The optimizers of a graph take the steps of torch.optim."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.training.forward import exported
from central.modeling.training_graph import StepSpec, build_training_graph
from tests.support.training_graphs import Trainer, norm_error

STEPS = 100


def a_module(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def forward():
    return exported(a_module(), torch.zeros(2, 6))


def batches(steps=STEPS, size=16):
    rng = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield (
            torch.randn(size, 6, generator=rng),
            torch.randint(0, 3, (size,), generator=rng),
        )


def trained_by_torch(optimizer_of, before_step=lambda module, start: None):
    module, start = a_module(), a_module()
    optimizer = optimizer_of(module.parameters())
    for x, y in batches():
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        before_step(module, start)
        optimizer.step()
    return module


def assert_same(trainer, module):
    for name, expected in module.named_parameters():
        assert norm_error(trainer.tensors[name], expected.detach()) < 1e-5, name


def trained_here(forward, spec, **constant):
    graph = build_training_graph(forward, spec)
    trainer = Trainer(graph, **constant)
    for x, y in batches():
        trainer.step(x, y)
    return trainer


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW


@pytest.mark.parametrize(
    ("optimizer", "rate", "settings"),
    [
        (SGD, 0.1, {}),
        (SGD, 0.1, {"weight_decay": 0.01}),
        (SGD, 0.1, {"momentum": 0.9}),
        (SGD, 0.1, {"momentum": 0.9, "weight_decay": 0.01}),
        (SGD, 0.1, {"momentum": 0.9, "nesterov": True}),
        (SGD, 0.1, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.01}),
        (ADAM, 0.01, {}),
        (ADAM, 0.01, {"weight_decay": 0.01}),
        (ADAMW, 0.01, {"weight_decay": 0.0}),
        (ADAMW, 0.01, {"weight_decay": 0.1}),
    ],
)
def test_a_hundred_steps_are_those_of_torch(forward, optimizer, rate, settings):
    expected = trained_by_torch(lambda p: optimizer(p, lr=rate, **settings))
    spec = StepSpec(optimizer=optimizer.__name__.lower(), **settings)
    trainer = trained_here(forward, spec, learning_rate=rate)
    assert_same(trainer, expected)
    assert norm_error(trainer.graph.first, trainer.parameters) > 0.1  # it did move


def test_clipping_is_that_of_torch_where_it_clips_and_where_not(forward):
    norms = []

    def clip(module, _start):
        norms.append(float(nn.utils.clip_grad_norm_(module.parameters(), 0.35)))

    expected = trained_by_torch(lambda p: SGD(p, lr=0.3, momentum=0.5), clip)
    assert min(norms) < 0.35 < max(norms)
    spec = StepSpec(momentum=0.5, has_clipping=True)
    assert_same(trained_here(forward, spec, learning_rate=0.3, clip_norm=0.35), expected)


def add_proximal(module, start):
    for now, then in zip(module.parameters(), start.parameters(), strict=True):
        now.grad += 0.3 * (now - then).detach()


def test_the_proximal_term_pulls_towards_the_reference(forward):
    expected = trained_by_torch(lambda p: SGD(p, lr=0.1), add_proximal)
    graph = build_training_graph(forward, StepSpec(has_proximal=True))
    trainer = Trainer(graph, learning_rate=0.1, proximal_mu=0.3, reference=graph.first)
    for x, y in batches():
        trainer.step(x, y)
    assert_same(trainer, expected)


def test_clipping_comes_after_the_proximal_term_and_decay_after_both(forward):
    def both(module, start):
        add_proximal(module, start)
        nn.utils.clip_grad_norm_(module.parameters(), 0.2)

    expected = trained_by_torch(lambda p: ADAM(p, lr=0.01, weight_decay=0.05), both)
    spec = StepSpec(optimizer="adam", weight_decay=0.05, has_proximal=True, has_clipping=True)
    graph = build_training_graph(forward, spec)
    trainer = Trainer(
        graph, learning_rate=0.01, proximal_mu=0.3, reference=graph.first, clip_norm=0.2
    )
    for x, y in batches():
        trainer.step(x, y)
    assert_same(trainer, expected)


def test_the_rate_may_change_from_step_to_step(forward):
    trainer = Trainer(build_training_graph(forward, StepSpec()))
    module = a_module()
    for number, (x, y) in enumerate(batches(10)):
        rate = 0.1 / (1 + number)
        trainer.step(x, y, learning_rate=rate)
        module.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.sub_(rate * parameter.grad)
    assert_same(trainer, module)


def test_inputs_and_outputs_are_the_agreed_ones_and_no_more(forward):
    plain = build_training_graph(forward, StepSpec())
    assert names(plain.model.graph.input) == [
        *("parameters", "input", "labels", "mask", "learning_rate")
    ]
    assert names(plain.model.graph.output) == ["new_parameters", "loss", "correct"]
    full = build_training_graph(
        forward, StepSpec(optimizer="adam", has_proximal=True, has_clipping=True)
    )
    assert names(full.model.graph.input) == [
        *("parameters", "state", "input", "labels", "mask", "learning_rate"),
        *("proximal_mu", "reference", "clip_norm"),
    ]
    assert names(full.model.graph.output) == ["new_parameters", "new_state", "loss", "correct"]
    assert {node.domain for node in full.model.graph.node} == {""}
    assert [(o.domain, o.version) for o in full.model.opset_import] == [("", 18)]
    assert full.model.ir_version == 8
    assert full.state_size == 2 * full.layout.size + 1
    assert np.array_equal(plain.first, full.first)


def names(infos):
    return [info.name for info in infos]
