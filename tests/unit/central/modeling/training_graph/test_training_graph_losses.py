"""Losses and their gradients against torch; the mask; a loss of the user's own."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from benchmarks.training.forward import exported
from central.modeling.training_graph import (
    PADDING_KEY,
    StepSpec,
    UnsupportedModelError,
    build_training_graph,
)
from tests.support.training_graphs import Trainer, gradients, norm_error


def a_module(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs))


@pytest.fixture(scope="module")
def forward():
    return exported(a_module(), torch.zeros(2, 6))


LOSSES = {
    "cross_entropy": functional.cross_entropy,
    "bce": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
}


def data(loss, size=9, seed=3):
    rng = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(size, 6, generator=rng)
    if loss == "cross_entropy":
        return x, torch.randint(0, 3, (size,), generator=rng)
    if loss == "bce":
        return x, torch.randint(0, 2, (size, 3), generator=rng).float()
    return x, 2 * torch.randn(size, 3, generator=rng)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_torch(forward, loss):
    graph = build_training_graph(forward, StepSpec(loss=loss))
    x, y = data(loss)
    module = a_module()
    expected = LOSSES[loss](module(x), y)
    expected.backward()
    assert Trainer(graph, learning_rate=0.1).step(x, y) == pytest.approx(
        float(expected.detach()), rel=1e-6
    )
    found = gradients(graph, x, y)
    for name, parameter in module.named_parameters():
        assert norm_error(found[name], parameter.grad) < 2e-6, name


@pytest.mark.parametrize("loss", LOSSES)
def test_masked_examples_have_no_effect(forward, loss):
    graph = build_training_graph(forward, StepSpec(loss=loss, momentum=0.9))
    assert {p.key: p.value for p in graph.model.metadata_props}[PADDING_KEY] == "allowed"
    x, y = data(loss)
    full, short = (Trainer(graph, learning_rate=0.1) for _ in range(2))
    mask = [1, 1, 1, 1, 1, 0, 0, 0, 0]
    for _ in range(5):
        assert full.step(x, y, mask) == pytest.approx(short.step(x[:5], y[:5]), rel=1e-6)
        assert full.last["correct"] == short.last["correct"]
    assert norm_error(full.parameters, short.parameters) < 1e-6
    assert norm_error(full.parameters, graph.first) > 1e-2


def test_a_batch_of_padding_alone_changes_nothing(forward):
    graph = build_training_graph(forward, StepSpec())
    trainer = Trainer(graph, learning_rate=0.1)
    x, y = data("cross_entropy")
    assert trainer.step(x, y, np.zeros(len(x))) == 0
    assert np.array_equal(trainer.parameters, graph.first)


def test_correct_counts_what_torch_counts(forward):
    module, (x, y) = a_module(), data("cross_entropy", 64)
    trainer = Trainer(build_training_graph(forward, StepSpec()), learning_rate=0.0)
    trainer.step(x, y)
    expected = int((module(x).argmax(1) == y).sum())
    assert 0 < expected < 64
    assert trainer.last["correct"] == expected
    assert trainer.last["correct"].dtype == np.int64


def test_correct_of_binary_labels_counts_examples_that_are_right_in_every_output(forward):
    module, (x, y) = a_module(), data("bce", 64)
    trainer = Trainer(build_training_graph(forward, StepSpec(loss="bce")), learning_rate=0.0)
    trainer.step(x, y)
    expected = int(((module(x) > 0) == (y > 0.5)).all(1).sum())
    assert 0 < expected < 64
    assert trainer.last["correct"] == expected


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_losses_without_classes_count_nothing(forward, loss):
    trainer = Trainer(build_training_graph(forward, StepSpec(loss=loss)), learning_rate=0.0)
    trainer.step(*data(loss))
    assert trainer.last["correct"] == 0


def test_large_logits_do_not_overflow(forward):
    for loss in ("cross_entropy", "bce"):
        trainer = Trainer(build_training_graph(forward, StepSpec(loss=loss)), learning_rate=0.0)
        trainer.parameters = trainer.parameters * np.float32(1e4)
        assert np.isfinite(trainer.step(*data(loss)))
        assert np.isfinite(trainer.parameters).all()


def test_cross_entropy_of_a_sequence_is_refused_with_its_shape():
    module = nn.Sequential(nn.Linear(6, 3))
    forward = exported(module, torch.zeros(2, 4, 6))
    with pytest.raises(UnsupportedModelError, match=r"cross_entropy needs logits of shape"):
        build_training_graph(forward, StepSpec())


def test_squared_error_of_a_sequence_is_that_of_torch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 3))
    graph = build_training_graph(exported(module, torch.zeros(2, 4, 6)), StepSpec(loss="mse"))
    x, y = torch.randn(5, 4, 6), torch.randn(5, 4, 3)
    functional.mse_loss(module(x), y).backward()
    found = gradients(graph, x, y)
    for name, parameter in module.named_parameters():
        assert norm_error(found[name], parameter.grad) < 2e-6, name


def own_loss(per_example, *, labels=False, mask=False):
    """Return a linear autoencoder's squared error (or distance to labels) as a graph."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 4)).astype(np.float32) / 2
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])]
    target = "input"
    if labels:
        target = "labels"
        inputs.append(helper.make_tensor_value_info("labels", TensorProto.FLOAT, ["batch", 4]))
    nodes = [
        helper.make_node("MatMul", ["input", "weight"], ["made"]),
        helper.make_node("Sub", ["made", target], ["error"]),
        helper.make_node("Mul", ["error", "error"], ["square"]),
        helper.make_node("ReduceSum", ["square", "one"], ["each"], keepdims=0),
    ]
    last = "each"
    if mask:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch"]))
        nodes += [
            helper.make_node("Mul", ["each", "mask"], ["kept"]),
            helper.make_node("ReduceSum", ["kept"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["mask"], ["valid"], keepdims=0),
            helper.make_node("Div", ["total", "valid"], ["loss"]),
        ]
    elif per_example:
        last = "loss"
        nodes[-1].output[0] = "loss"
    else:
        nodes.append(helper.make_node("ReduceMean", [last], ["loss"], keepdims=0))
    shape = ["batch"] if per_example else []
    graph = helper.make_graph(
        nodes,
        "autoencoder",
        inputs,
        [helper.make_tensor_value_info("loss", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def expected_of_own(x, target):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((4, 4)).astype(np.float32) / 2).astype(np.float64)
    error = x @ weight - target
    return (error**2).sum(1).mean(), 2 * x.T @ error / len(x)


@pytest.mark.parametrize("per_example", [True, False])
@pytest.mark.parametrize("labels", [True, False])
def test_a_loss_of_the_graphs_own_is_minimized(per_example, labels):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 7, 4)).astype(np.float32)
    graph = build_training_graph(own_loss(per_example, labels=labels), StepSpec(loss="model"))
    loss, gradient = expected_of_own(x, y if labels else x)
    trainer = Trainer(graph, learning_rate=0.1)
    assert trainer.step(x, y) == pytest.approx(loss, rel=1e-5)
    assert trainer.last["correct"] == 0
    assert norm_error(gradients(graph, x, y)["weight"], gradient) < 1e-5
    padding = {p.key: p.value for p in graph.model.metadata_props}[PADDING_KEY]
    assert padding == ("allowed" if per_example else "forbidden")


@pytest.mark.parametrize("settings", [{"per_example": True}, {"per_example": False, "mask": True}])
def test_the_mask_reaches_a_loss_of_the_graphs_own(settings):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((7, 4)).astype(np.float32)
    graph = build_training_graph(own_loss(**settings), StepSpec(loss="model"))
    assert {p.key: p.value for p in graph.model.metadata_props}[PADDING_KEY] == "allowed"
    full, short = (Trainer(graph, learning_rate=0.01) for _ in range(2))
    for _ in range(5):
        full.step(x, mask=[1, 1, 1, 0, 0, 0, 0])
        short.step(x[:3])
    assert norm_error(full.parameters, short.parameters) < 1e-6


def test_a_graph_without_the_output_loss_cannot_bring_its_own(forward):
    with pytest.raises(UnsupportedModelError, match="its outputs are logits, needed are loss"):
        build_training_graph(forward, StepSpec(loss="model"))


def test_inner_names_that_the_step_needs_are_made_way_for():
    model = own_loss(per_example=True)
    for node in model.graph.node:
        node.input[:] = [{"made": "parameters", "error": "mask"}.get(n, n) for n in node.input]
        node.output[:] = [{"made": "parameters", "error": "mask"}.get(n, n) for n in node.output]
    onnx.checker.check_model(model)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((7, 4)).astype(np.float32)
    graph = build_training_graph(model, StepSpec(loss="model"))
    assert norm_error(gradients(graph, x)["weight"], expected_of_own(x, x)[1]) < 1e-5


def test_a_parameter_with_a_name_of_the_step_is_refused():
    model = own_loss(per_example=True)
    model.graph.initializer[0].name = "state"
    model.graph.node[0].input[1] = "state"
    with pytest.raises(UnsupportedModelError, match="parameter 'state'"):
        build_training_graph(model, StepSpec(loss="model"))
