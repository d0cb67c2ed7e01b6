"""Gradients of whole models as torch exports them, against torch autograd in float32.

The bound is 1e-5 of the gradient's norm; one dynamic graph serves every batch size.
"""

import contextlib
import io
import logging
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from central.modeling.training_graph.preparation import prepare
from tests.support.gradient_check import gradient_graph

BOUND = 1e-5
BATCHES = (8, 5, 1)
_TALKATIVE = "torch.onnx._internal.exporter._registration"


def softmax_regression():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def mlp():
    return nn.Sequential(
        nn.Linear(20, 32),
        nn.Tanh(),
        nn.Linear(32, 32),
        nn.Sigmoid(),
        nn.Linear(32, 16),
        nn.GELU(),
        nn.Linear(16, 5),
    )


def lenet5():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def cnn_with_batch_norm():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def depthwise_separable():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(4, 16),
        nn.ReLU6(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.GroupNorm(4, 16),
        nn.Hardswish(),
        nn.Conv2d(16, 24, 1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    )


class Block(nn.Module):
    def __init__(self, before, after, stride, norm):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = norm(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = norm(after)
        self.short = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), norm(after))
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x):
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.short(x))


def residual(norm):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        norm(16),
        nn.ReLU(),
        Block(16, 16, 1, norm),
        Block(16, 32, 2, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Encoder(nn.Module):
    """Embedding, positions, one pre-norm transformer block, mean over time."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.places = nn.Parameter(torch.randn(1, 12, 16) * 0.1)
        self.block = nn.TransformerEncoderLayer(
            16, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.norm(self.block(self.words(x) + self.places)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.cell = cell(8, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 30)

    def forward(self, x):
        return self.head(self.cell(self.words(x))[0][:, -1])


MODELS = {
    "softmax regression": (softmax_regression, (1, 8, 8)),
    "MLP": (mlp, (20,)),
    "LeNet-5": (lenet5, (1, 28, 28)),
    "CNN with batch norm": (cnn_with_batch_norm, (3, 16, 16)),
    "depthwise separable": (depthwise_separable, (3, 16, 16)),
    "residual with group norm": (lambda: residual(lambda n: nn.GroupNorm(4, n)), (3, 16, 16)),
    "residual with batch norm": (lambda: residual(nn.BatchNorm2d), (3, 16, 16)),
    "transformer": (Encoder, (12,)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (7,)),
    "GRU": (lambda: Recurrent(nn.GRU), (7,)),
}


def exported(module, example):
    """Return the model as central exports it; the names of its parameters are torch's."""
    logging.getLogger(_TALKATIVE).setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            optimize=False,
            opset_version=18,
            input_names=["input"],
            output_names=["y"],
            external_data=False,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
        )
    return program.model_proto


def examples(shape, batch):
    rng = torch.Generator().manual_seed(batch)
    if len(shape) == 1 and shape[0] < 20:
        return torch.randint(0, 30, (batch, *shape), generator=rng)
    return torch.randn(batch, *shape, generator=rng)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_model_agree_with_torch(name):
    torch.manual_seed(4)
    build, shape = MODELS[name]
    module = build()
    forward = exported(module, examples(shape, 2))
    names = [key for key, _ in module.named_parameters()]
    model = gradient_graph(prepare(forward, names), names)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    has_batch_norm = any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    for batch in BATCHES[: 2 if has_batch_norm else 3]:
        x = examples(shape, batch)
        module.train().zero_grad()
        y = module(x)
        seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)) / batch
        y.backward(seed)
        feeds = {"input": x.numpy(), "seed": seed.numpy()}
        feeds |= {key: tensor.detach().numpy() for key, tensor in module.named_parameters()}
        got = session.run(None, feeds)
        np.testing.assert_allclose(got[0], y.detach().numpy(), rtol=1e-4, atol=1e-5)
        expected = [tensor.grad.numpy() for tensor in module.parameters()]
        _compare(names, got[1:], expected)


def _compare(names, got, expected):
    norm = np.linalg.norm(np.concatenate([g.ravel() for g in expected]))
    for name, ours, theirs in zip(names, got, expected, strict=True):
        error = np.linalg.norm(ours - theirs)
        assert error <= BOUND * norm, f"{name}: off by {error / norm:.3g} of the gradient"
        if np.linalg.norm(theirs) > norm / 100:
            assert error <= BOUND * np.linalg.norm(theirs), name
