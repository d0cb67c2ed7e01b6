"""What travels and what stays, batch normalization, dropout, and what is refused."""

import subprocess
import sys

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
    describe,
    rules,
    step,
)
from tests.support.training_graphs import Trainer, flatten, norm_error, session


def a_network(norm=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=not norm),
        nn.BatchNorm2d(4, momentum=0.3) if norm else nn.Identity(),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)),
    )


@pytest.fixture(scope="module")
def forward():
    return exported(a_network(), torch.zeros(2, 2, 6, 6))


def batches(steps, size=8):
    rng = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = 2 + 3 * torch.randn(size, 2, 6, 6, generator=rng)
        yield x, torch.randint(0, 5, (size,), generator=rng)


def train(module, steps, size=8, frozen=()):
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9)
    module.train()
    for x, y in batches(steps, size):
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return module


def test_running_statistics_travel_and_follow_torch(forward):
    graph = build_training_graph(forward, StepSpec(momentum=0.9))
    trainer = Trainer(graph, learning_rate=0.01)
    for x, y in batches(20):
        trainer.step(x, y)
    module = train(a_network(), 20)
    assert "1.running_mean" in trainer.tensors
    assert graph.state_size == sum(p.numel() for p in module.parameters())
    assert float(np.abs(trainer.tensors["1.running_mean"]).max()) > 0.1
    for name, value in trainer.tensors.items():
        assert norm_error(value, module.state_dict()[name]) < 1e-5, name
    assert norm_error(trainer.parameters, flatten(graph.layout, module)) < 1e-5


def test_padding_does_not_touch_batch_normalization(forward):
    graph = build_training_graph(forward, StepSpec(momentum=0.9))
    assert {p.key: p.value for p in graph.model.metadata_props}[PADDING_KEY] == "allowed"
    full, short = (Trainer(graph, learning_rate=0.01) for _ in range(2))
    for x, y in batches(10):
        full.step(x, y, [1, 1, 1, 1, 1, 0, 0, 0])
        short.step(x[:5], y[:5])
    assert norm_error(full.parameters, short.parameters) < 1e-6


def test_a_forward_graph_that_mixes_examples_must_not_be_padded():
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input", "axis"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["input", "mean"], ["centred"]),
            helper.make_node("MatMul", ["centred", "weight"], ["logits"]),
        ],
        "centred",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.ones((4, 3), np.float32), "weight"),
            numpy_helper.from_array(np.array([0]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    built = build_training_graph(model, StepSpec())
    assert {p.key: p.value for p in built.model.metadata_props}[PADDING_KEY] == "forbidden"
    assert not describe(built).may_pad


def test_frozen_parameters_stay_and_do_not_travel(forward):
    frozen = ("0.weight", "1.weight", "1.bias")
    graph = build_training_graph(
        forward, StepSpec(momentum=0.9, frozen=("0.*", "1.*s", "1.weight"))
    )
    names = [spec.name for spec in graph.layout.tensors]
    assert names == ["1.running_mean", "1.running_var", "4.bias", "4.weight"]
    assert graph.state_size == 5 + 5 * 144
    stored = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in graph.model.graph.initializer
    }
    assert np.array_equal(stored["0.weight"], a_network()[0].weight.detach())
    trainer = Trainer(graph, learning_rate=0.01)
    module = a_network()
    module[1].eval()  # nothing in front of it is trained: its statistics stay
    for parameter in (*module[0].parameters(), *module[1].parameters()):
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD(module[4].parameters(), lr=0.01, momentum=0.9)
    for x, y in batches(10):
        trainer.step(x, y)
        optimizer.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    for name, value in trainer.tensors.items():
        assert norm_error(value, module.state_dict()[name]) < 1e-5, name
    assert set(frozen).isdisjoint(names)


def test_a_frozen_bias_behind_trained_layers_stays(forward):
    graph = build_training_graph(forward, StepSpec(momentum=0.9, frozen=("4.bias",)))
    trainer = Trainer(graph, learning_rate=0.01)
    for x, y in batches(10):
        trainer.step(x, y)
    module = train(a_network(), 10, frozen=("4.bias",))
    for name, value in trainer.tensors.items():
        assert norm_error(value, module.state_dict()[name]) < 1e-5, name


def test_freezing_everything_is_refused(forward):
    with pytest.raises(UnsupportedModelError, match=r"none of its .* is left to train"):
        build_training_graph(forward, StepSpec(frozen=("*",)))


def test_a_pattern_that_matches_nothing_is_refused(forward):
    with pytest.raises(UnsupportedModelError, match=r"frozen: 'head\.\*' matches no parameter"):
        build_training_graph(forward, StepSpec(frozen=("head.*",)))


def linear_model(extra_nodes=(), logits="logits"):
    """Return ``input @ weight``, and nodes that may do something with ``other``."""
    nodes = [helper.make_node("MatMul", ["input", "weight"], [logits]), *extra_nodes]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.ones((4, 3), np.float32), "weight"),
            numpy_helper.from_array(np.ones(3, np.float32), "other"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Mul", ["other", "other"], ["unused"])],
        [
            helper.make_node("Sign", ["other"], ["step"]),
            helper.make_node("Add", ["raw", "step"], ["logits"]),
        ],
        [
            helper.make_node("Cast", ["other"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Cast", ["whole"], ["again"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["raw", "again"], ["logits"]),
        ],
    ],
    ids=["unused", "step function", "whole numbers"],
)
def test_a_trainable_that_the_loss_does_not_reach_is_refused(nodes):
    logits = "logits" if len(nodes) == 1 else "raw"
    with pytest.raises(UnsupportedModelError, match="do not influence the loss: 'other'"):
        build_training_graph(linear_model(nodes, logits), StepSpec())


def test_an_initializer_that_nothing_uses_is_no_parameter():
    graph = build_training_graph(linear_model(), StepSpec())
    assert [spec.name for spec in graph.layout.tensors] == ["weight"]


def wrong_by_a_factor(builder, node, outer):
    return [builder.emit("Mul", outer[0], builder.scalar(0.9))]


def wrong_in_places(builder, node, outer):
    """Forgets that tanh flattens where its output is below 0."""
    y = node.output[0]
    slope = builder.emit("Sub", builder.scalar(1), builder.emit("Mul", y, y))
    right = builder.emit("Mul", outer[0], slope)
    return [builder.emit("Where", builder.emit("Less", y, builder.scalar(0)), outer[0], right)]


def silently_zero(builder, node, outer):
    return [builder.zeros(node.input[0])]


@pytest.mark.parametrize("wrong", [wrong_by_a_factor, wrong_in_places, silently_zero])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_a_wrong_rule_is_found_when_the_graph_is_built(monkeypatch, wrong, kind):
    torch.manual_seed(0)
    if kind == "dense":
        module, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), torch.zeros(2, 6)
    else:
        module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))
        x = torch.zeros(2, 2, 6, 6)
    forward = exported(module, x)
    build_training_graph(forward, StepSpec())
    monkeypatch.setitem(rules.registry._rules, "Tanh", wrong)
    with pytest.raises(UnsupportedModelError, match=r"gradient of '0\.(bias|weight)' disagrees"):
        build_training_graph(forward, StepSpec())


def test_a_wrong_rule_is_found_where_the_loss_is_rounded(monkeypatch):
    """Erf has no kernel in double: the differences are rougher, and must still tell."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5))
    forward = exported(module, torch.zeros(2, 6))
    found = []
    real = step.verify_gradients
    monkeypatch.setattr(step, "verify_gradients", lambda *a: found.append(real(*a)) or found[-1])
    build_training_graph(forward, StepSpec())
    assert not found[0].is_double
    assert found[0].worst < 1e-2
    monkeypatch.setitem(rules.registry._rules, "Tanh", wrong_in_places)
    with pytest.raises(UnsupportedModelError, match=r"gradient of '0\.(bias|weight)' disagrees"):
        build_training_graph(forward, StepSpec())


def test_every_tensor_was_verified_in_double(monkeypatch, forward):
    found = []
    real = step.verify_gradients
    monkeypatch.setattr(step, "verify_gradients", lambda *a: found.append(real(*a)) or found[-1])
    build_training_graph(forward, StepSpec())
    assert found[0].is_double
    assert found[0].tensors == 5
    assert found[0].worst < 1e-4


def dropout_model(ratio=0.5, *, training=True):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(np.float32) / 3 for shape in ((8, 64), (64, 3))]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Dropout", ["active", "ratio", "training"], ["dropped"]),
            helper.make_node("MatMul", ["dropped", "second"], ["logits"]),
        ],
        "dropout",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            *map(numpy_helper.from_array, weights, ("first", "second")),
            numpy_helper.from_array(np.array(ratio, np.float32), "ratio"),
            numpy_helper.from_array(np.array(training), "training"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_drops_and_its_gradient_was_verified(monkeypatch, training):
    """Also where the forward graph holds it as evaluation needs it."""
    found = []
    real = step.verify_gradients
    monkeypatch.setattr(step, "verify_gradients", lambda *a: found.append(real(*a)) or found[-1])
    graph = build_training_graph(dropout_model(training=training), StepSpec())
    assert found[0].tensors == 2
    assert any(node.op_type == "Dropout" for node in graph.model.graph.node)
    trainer = Trainer(graph, learning_rate=0.0)
    x, y = np.ones((8, 8), np.float32), np.zeros(8, np.int64)
    assert len({trainer.step(x, y) for _ in range(5)}) == 5


IN_A_NEW_PROCESS = """
import sys
import numpy as np
import onnxruntime
onnxruntime.set_seed(int(sys.argv[2]))
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
feed = {
    "parameters": np.load(sys.argv[1] + ".npy"),
    "input": np.ones((8, 8), np.float32),
    "labels": np.zeros(8, np.int64),
    "mask": np.ones(8, np.float32),
    "learning_rate": np.array(0.1, np.float32),
}
print([session.run(["loss"], feed)[0].item().hex() for _ in range(3)])
"""


def test_the_same_seed_gives_the_same_masks_in_a_new_process(tmp_path):
    graph = build_training_graph(dropout_model(), StepSpec())
    path = tmp_path / "step.onnx"
    path.write_bytes(graph.model.SerializeToString())
    np.save(f"{path}.npy", graph.first)

    def losses(seed):
        command = [sys.executable, "-c", IN_A_NEW_PROCESS, str(path), str(seed)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert losses(7) == losses(7) != losses(1_000_007)


def test_dropout_in_front_of_everything_trained_still_drops():
    """No gradient passes it, so no rule asks for its mask."""
    model = dropout_model()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Dropout", ["input", "ratio", "training"], ["dropped"]),
            helper.make_node("MatMul", ["dropped", "first"], ["hidden"]),
            nodes[1],
            helper.make_node("MatMul", ["active", "second"], ["logits"]),
        ]
    )
    graph = build_training_graph(model, StepSpec())
    trainer = Trainer(graph, learning_rate=0.0)
    x, y = np.ones((8, 8), np.float32), np.zeros(8, np.int64)
    assert len({trainer.step(x, y) for _ in range(5)}) == 5


def test_the_figures_of_a_graph_are_counted(forward):
    graph = build_training_graph(forward, StepSpec(optimizer="adam", frozen=("0.weight",)))
    found = describe(graph)
    assert found.parameters == graph.layout.size
    assert found.state_size == graph.state_size
    assert found.constants >= 2 * 4 * 9
    assert found.nodes == len(graph.model.graph.node) == sum(found.operators.values())
    assert found.graph_bytes == len(graph.model.SerializeToString())
    assert found.may_pad
    onnx.checker.check_model(graph.model, full_check=True)
    assert session(graph.model).get_inputs()[0].name == "parameters"
