"""Recurrent nodes of a fixed length train as torch's, and stay what they were."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from single_node_gradients import TORCH_TOLERANCE, relative

from central.modeling.training_graph.backward import backpropagate, emit_forward
from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.preparation import prepare

LENGTH, INPUTS, HIDDEN = 4, 3, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _values(*shape, seed=7):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 0.4


def parameters(kind, directions=1):
    gates = GATES[kind] * HIDDEN
    return {
        "W": _values(directions, gates, INPUTS, seed=1),
        "R": _values(directions, gates, HIDDEN, seed=2),
        "B": _values(directions, 2 * gates, seed=3),
    }


def forward(kind, names, output=0, length=LENGTH, **attributes):
    """The input ``(batch, length, inputs)``, time first, one recurrent node, its output."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    values = {**parameters(kind, directions), "P": _values(directions, 3 * HIDDEN, seed=4)}
    values |= {key: _values(directions, 1, HIDDEN, seed=5) for key in "HC"}
    values |= {"directions": np.array([directions]), "hidden": np.array([HIDDEN])}
    nodes = [helper.make_node("Transpose", ["input"], ["time first"], perm=[1, 0, 2])]
    if "H" in names:
        nodes += [
            helper.make_node("Shape", ["input"], ["size"], end=1),
            helper.make_node("Concat", ["directions", "size", "hidden"], ["state"], axis=0),
            *(helper.make_node("Expand", [key, "state"], [f"{key} of all"]) for key in "HC"),
        ]
    inputs = ["time first", *(f"{key} of all" if key in {"H", "C"} else key for key in names)]
    outputs = ["", "", ""][: 3 if kind == "LSTM" else 2]
    outputs[output] = "logits"
    nodes.append(
        helper.make_node(kind, inputs, outputs, name="it", hidden_size=HIDDEN, **attributes)
    )
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "forward",
        [helper.make_tensor_value_info("input", 1, ["batch", length, INPUTS])],
        [helper.make_empty_tensor_value_info("logits")],
        [numpy_helper.from_array(v, k) for k, v in values.items() if k in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def trained(model, targets):
    """A session of output and gradients."""
    prepared = prepare(model, targets)
    assert not {"LSTM", "GRU", "RNN"} & {node.op_type for node in prepared.graph.node}
    builder = GraphBuilder(prepared.graph)
    values = {name: builder.release(name) for name in targets}
    wanted = ["input", *targets]
    nodes = emit_forward(builder, prepared.graph, wanted)
    gradients = backpropagate(builder, nodes, {"logits": "outer"}, wanted)
    names = ["logits", *(builder.emit("Identity", gradients[n], output=f"d.{n}") for n in wanted)]
    inputs = [
        helper.make_tensor_value_info("input", 1, ["batch", *builder.shape("input")[1:]]),
        helper.make_tensor_value_info("outer", 1, [None] * builder.rank("logits")),
        *(helper.make_tensor_value_info(n, 1, v.shape) for n, v in values.items()),
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    ready = session(builder.finish("gradients", inputs, outputs))
    return lambda x, outer: dict(
        zip(names, ready.run(None, {"input": x, "outer": outer, **values}), strict=True)
    )


#: Where torch's gates lie among those of ONNX.
TORCH_ORDER = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}


def in_torch_order(kind, array):
    """Reorder the gates along the first axis; of ONNX to torch."""
    return np.concatenate([np.split(array, GATES[kind])[gate] for gate in TORCH_ORDER[kind]])


def torch_twin(kind, directions):
    cell = getattr(torch.nn, kind)(INPUTS, HIDDEN, batch_first=True, bidirectional=directions == 2)
    cell = cell.double()
    for index in range(directions):
        suffix = "_l0" + ("_reverse" if index else "")
        arrays = as_torch(kind, parameters(kind, directions), index)
        for name, array in arrays.items():
            getattr(cell, name + suffix).data = torch.tensor(array.astype(np.float64))
    return cell


def as_torch(kind, arrays, index):
    of_input, recurrent = np.split(arrays["B"][index], 2)
    return {
        "weight_ih": in_torch_order(kind, arrays["W"][index]),
        "weight_hh": in_torch_order(kind, arrays["R"][index]),
        "bias_ih": in_torch_order(kind, of_input),
        "bias_hh": in_torch_order(kind, recurrent),
    }


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_gradients_of_a_recurrent_node_agree_with_torch(kind, direction):
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    directions = 2 if direction == "bidirectional" else 1
    run = trained(forward(kind, "WRB", direction=direction, **attributes), ["W", "R", "B"])
    for batch in (1, 5):
        cell = torch_twin(kind, directions)
        x = _values(batch, LENGTH, INPUTS, seed=batch)
        leaf = torch.tensor(x.astype(np.float64), requires_grad=True)
        y = cell(leaf)[0].reshape(batch, LENGTH, directions, HIDDEN).permute(1, 2, 0, 3)
        outer = _values(LENGTH, directions, batch, HIDDEN, seed=9)
        y.backward(torch.tensor(outer.astype(np.float64)))
        found = run(x, outer)
        assert relative(found["logits"], y.detach().numpy()) < TORCH_TOLERANCE
        assert relative(found["d.input"], leaf.grad.numpy()) < TORCH_TOLERANCE
        for index in range(directions):
            gradients = as_torch(kind, {k: found[f"d.{k}"] for k in "WRB"}, index)
            suffix = "_l0" + ("_reverse" if index else "")
            for name, gradient in gradients.items():
                expected = getattr(cell, name + suffix).grad.numpy()
                assert relative(gradient, expected) < TORCH_TOLERANCE, (name, index)


VARIANTS = {
    "reverse": ("LSTM", "WRB", {"direction": "reverse"}),
    "reverse GRU": ("GRU", "WRB", {"direction": "reverse"}),
    "reset first": ("GRU", "WRB", {"linear_before_reset": 0}),
    "reset first, both directions": ("GRU", "WRB", {"direction": "bidirectional"}),
    "no bias": ("LSTM", "WR", {}),
    "no bias, GRU": ("GRU", "WR", {"linear_before_reset": 1}),
    "other activations": ("RNN", "WRB", {"activations": ["Softplus"]}),
    "other activations, LSTM": ("LSTM", "WRB", {"activations": ["Sigmoid", "Softsign", "Tanh"]}),
    "peepholes": ("LSTM", ["W", "R", "B", "", "", "", "P"], {}),
    "initial state": ("LSTM", ["W", "R", "B", "", "H", "C"], {}),
    "initial state, both directions": (
        "GRU",
        ["W", "R", "B", "", "H"],
        {"direction": "bidirectional"},
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("output", [0, 1, 2])
def test_a_recurrent_node_is_unrolled_into_what_the_runtime_computes(name, output):
    kind, names, attributes = VARIANTS[name]
    if output == 2 and kind != "LSTM":
        kind = "LSTM"  # only it has a third output
        names, attributes = "WRB", {"direction": attributes.get("direction", "forward")}
    targets = [key for key in "WRBPH" if key in names]
    model = forward(kind, names, output=output, **attributes)
    x = _values(3, LENGTH, INPUTS, seed=6)
    expected = session(model).run(None, {"input": x})[0]
    outer = np.random.default_rng(8).standard_normal(expected.shape).astype(np.float32)
    found = trained(model, targets)(x, outer)
    assert relative(found["logits"], expected) < TORCH_TOLERANCE
    check_directions(model, x, outer, found, targets)


def check_directions(model, x, outer, found, targets):
    """Central differences of the untouched model on onnxruntime, along each gradient."""
    plain = session(_with_inputs(model, targets))
    values = {
        t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in targets
    }
    for name in ("input", *targets):
        gradient = found[f"d.{name}"].astype(np.float64)
        step = (0.02 * gradient / np.linalg.norm(gradient)).astype(np.float32)
        sums = []
        for sign in (1, -1):
            feeds = {"input": x, **values}
            feeds[name] = feeds[name] + sign * step
            sums.append((plain.run(None, feeds)[0].astype(np.float64) * outer).sum())
        slope = (sums[0] - sums[1]) / (2 * np.linalg.norm(step.astype(np.float64)))
        assert abs(slope - np.linalg.norm(gradient)) < 5e-3 * np.linalg.norm(gradient), name


def _with_inputs(model, targets):
    changed = type(model)()
    changed.CopyFrom(model)
    kept = [t for t in changed.graph.initializer if t.name not in targets]
    changed.graph.input.extend(
        helper.make_tensor_value_info(t.name, 1, t.dims)
        for t in changed.graph.initializer
        if t.name in targets
    )
    changed.graph.ClearField("initializer")
    changed.graph.initializer.extend(kept)
    return changed


def test_a_sequence_of_one_step_is_unrolled():
    model = forward("LSTM", "WRB", length=1)
    x = _values(2, 1, INPUTS)
    expected = session(model).run(None, {"input": x})[0]
    found = trained(model, ["W", "R", "B"])(x, np.ones_like(expected))
    assert relative(found["logits"], expected) < TORCH_TOLERANCE


@pytest.mark.parametrize(
    ("kind", "attributes", "word"),
    [
        ("LSTM", {"clip": 1.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("RNN", {"activations": ["Affine"]}, "Affine"),
    ],
)
def test_what_cannot_be_unrolled_is_refused_by_name(kind, attributes, word):
    with pytest.raises(UnsupportedModelError, match=word) as refusal:
        prepare(forward(kind, "WRB", **attributes), ["W"])
    assert refusal.value.operator == kind
    assert refusal.value.node == "it"
