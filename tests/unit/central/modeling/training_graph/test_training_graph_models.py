"""Whole models against torch: gradients, and a hundred steps of each optimizer.

A gradient's error is the norm of the difference over the norm, of all tensors together, and of
each tensor that holds at least a thousandth of the whole.
"""

from functools import lru_cache

import numpy as np
import pytest
import torch
from torch.nn import functional

from central.modeling.training_graph import StepSpec, build_training_graph
from tests.support.training_graphs import Trainer, export, flatten, gradients, norm_error
from tests.support.training_models import KINDS

pytestmark = pytest.mark.slow

GRADIENT_ERROR = 1e-5
STEP_ERROR = 1e-4
SMALL = 1e-3

OPTIMIZERS = {
    "sgd": (StepSpec(), 0.02, lambda p: torch.optim.SGD(p, lr=0.02)),
    "momentum": (
        StepSpec(momentum=0.9),
        0.01,
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    ),
    "adam": (StepSpec(optimizer="adam"), 1e-3, lambda p: torch.optim.Adam(p, lr=1e-3)),
}


@lru_cache(maxsize=1)
def forward(name):
    kind = KINDS[name]
    return export(kind.module(), kind.batch(3)[0])


@lru_cache(maxsize=1)
def graph(name):
    return build_training_graph(forward(name), StepSpec())


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_torch(name):
    kind = KINDS[name]
    for size in (8, 5):
        x, y = kind.batch(size, seed=size)
        found = gradients(graph(name), x, y)
        module = kind.module().train()
        functional.cross_entropy(module(x), y).backward()
        expected = {key: p.grad.numpy().ravel() for key, p in module.named_parameters()}
        whole = np.concatenate(list(expected.values()))
        assert norm_error(np.concatenate([found[key] for key in expected]), whole) < GRADIENT_ERROR
        for key, gradient in expected.items():
            if np.linalg.norm(gradient) > SMALL * np.linalg.norm(whole):
                assert norm_error(found[key], gradient) < GRADIENT_ERROR, key


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", KINDS)
def test_a_hundred_steps_stay_with_torch(name, optimizer):
    spec, rate, make = OPTIMIZERS[optimizer]
    kind = KINDS[name]
    trainer = Trainer(graph_with(name, spec), learning_rate=rate)
    module = kind.module().train()
    theirs = make(module.parameters())
    for number in range(100):
        x, y = kind.batch(8, seed=number)
        loss = trainer.step(x, y)
        theirs.zero_grad()
        expected = functional.cross_entropy(module(x), y)
        expected.backward()
        theirs.step()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-3)
    layout = trainer.graph.layout
    assert norm_error(trainer.parameters, flatten(layout, module)) < STEP_ERROR


def graph_with(name, spec):
    return graph(name) if spec == StepSpec() else build_training_graph(forward(name), spec)
