"""The port ``Modeler``, with the process behind it."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from central.modeling import process
from central.modeling.modeler import GraphModeler
from central.modeling.operators import FORWARD_OPERATORS
from central.modeling.training_graph.rules import rules_for, supported
from central.modeling.unsafe import UnsafeModelError
from learning.graph_file import decode_graph
from learning.models import parameters, registry
from learning.models.architectures import ModelError
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from updates.layout import Layout

DATA = DataDescription(name="blobs", shape=(4,), classes=3, examples=9)
MLP = {"model": "mlp", "model_params": {"hidden": (16,)}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def own_file(path):
    rng = np.random.default_rng(3)
    shapes = {"base": (4, 8), "head": (8, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "base"], ["h"]),
            helper.make_node("Tanh", ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "head"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save_model(model, path)
    return path


def task(**fields):
    return TaskSubmission.model_validate({**MLP, **fields})


def test_a_task_begins_with_torchs_parameters_and_a_graph_that_trains_them(cache, scratch):
    prepared = GraphModeler({}, (), cache).prepare(task(seed=4), DATA, scratch)
    expected = parameters.read(registry.build("mlp", MLP["model_params"], (4,), 3, seed=4))
    np.testing.assert_equal(prepared.layout.unflatten(prepared.vector), expected)
    assert prepared.reason is None
    session = onnxruntime.InferenceSession(decode_graph(prepared.graph, 1 << 20))
    assert session.get_inputs()[0].name == "parameters"
    assert session.get_inputs()[0].shape == [prepared.layout.size]


def test_the_same_task_is_not_built_twice(cache, scratch, monkeypatch):
    first = GraphModeler({}, (), cache).prepare(task(seed=4), DATA, scratch)

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(process, "prepare", refuse)
    again = GraphModeler({}, (), cache).prepare(task(seed=4), DATA, scratch)
    assert (again.layout, again.graph) == (first.layout, first.graph)
    assert again.vector.tobytes() == first.vector.tobytes()
    with pytest.raises(AssertionError):
        GraphModeler({}, (), cache).prepare(
            task(seed=4, training={"momentum": 0.5}), DATA, scratch
        )


@pytest.mark.parametrize(
    "fields", [{"requires": {"backend": "torch"}}, {"training": {"epochs": 0}}]
)
def test_what_no_device_trains_by_a_graph_gets_none(cache, scratch, fields):
    prepared = GraphModeler({}, (), cache).prepare(task(seed=4, **fields), DATA, scratch)
    assert (prepared.graph, prepared.reason) == (None, None)
    assert prepared.layout.size == 4 * 16 + 16 + 16 * 3 + 3


@pytest.mark.parametrize("cut", [0, 4, -5])
def test_graphs_that_a_power_cut_has_torn_are_built_again(cache, scratch, tmp_path, cut):
    first = GraphModeler({}, (), cache).prepare(task(seed=4), DATA, scratch)
    torn = shutil.copytree(cache, tmp_path / "graphs")
    for path in torn.iterdir():
        path.write_bytes(path.read_bytes()[:cut])
    again = GraphModeler({}, (), torn).prepare(task(seed=4), DATA, scratch)
    assert (again.layout, again.graph) == (first.layout, first.graph)
    assert sorted(path.name for path in torn.iterdir()) == sorted(
        path.name for path in cache.iterdir()
    )


def test_an_onnx_file_is_trained_evaluated_and_written_with_its_frozen_part(
    cache, scratch, tmp_path
):
    path = own_file(tmp_path / "theirs.onnx")
    modeler = GraphModeler({"theirs": str(path)}, (), cache)
    submission = TaskSubmission(model="theirs", training={"frozen": ("base",)})
    prepared = modeler.prepare(submission, DATA, scratch)
    assert prepared.layout == Layout.of({"head": (8, 3)})
    target = tmp_path / "final.onnx"
    trained = prepared.vector * 2
    modeler.export(submission, DATA, prepared.layout, trained, target)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    (before,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    (after,) = onnxruntime.InferenceSession(target).run(None, {"input": x})
    np.testing.assert_allclose(after, 2 * before, rtol=1e-5)


def with_own_loss(path):
    """Write a file that takes labels and computes ten times the cross-entropy."""
    model = onnx.load(own_file(path))
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("labels", TensorProto.INT64, ["m"]))
    graph.output.append(helper.make_tensor_value_info("loss", TensorProto.FLOAT, []))
    graph.node.extend(
        [
            helper.make_node("SoftmaxCrossEntropyLoss", ["y", "labels"], ["mean"]),
            helper.make_node("Mul", ["mean", "ten"], ["loss"]),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.float32(10), "ten"))
    onnx.save_model(model, path)
    return path


def test_a_loss_of_the_file_itself_is_trained_and_measured_but_not_written(
    cache, scratch, tmp_path
):
    x = np.random.default_rng(5).standard_normal((6, 4)).astype(np.float32)
    y = np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "held.npz", x=x, y=y)
    spec = f"npz={tmp_path / 'held.npz'}"
    modeler = GraphModeler({"theirs": str(with_own_loss(tmp_path / "m.onnx"))}, (spec,), cache)
    (data,) = [one.dataset.description() for one in modeler._evaluators.values()]
    submission = TaskSubmission(model="theirs", training={"loss": "model"})
    prepared = modeler.prepare(submission, data, scratch)
    assert prepared.layout == Layout.of({"base": (4, 8), "head": (8, 3)})
    got = modeler.evaluate(submission, data, prepared.layout, prepared.vector)
    values = prepared.layout.unflatten(prepared.vector)
    logits = np.tanh(x @ values["base"]) @ values["head"]
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert got["loss"] == pytest.approx(-10 * shifted[np.arange(6), y].mean(), rel=1e-5)
    assert got["accuracy"] == pytest.approx((logits.argmax(axis=1) == y).mean())
    target = tmp_path / "final.onnx"
    modeler.export(submission, data, prepared.layout, prepared.vector, target)
    graph = onnx.load(target).graph
    assert ([one.name for one in graph.input], [one.name for one in graph.output]) == (
        ["input"],
        ["logits"],
    )


def test_a_file_that_cannot_be_trained_is_refused_with_the_reason(cache, scratch, tmp_path):
    path = own_file(tmp_path / "theirs.onnx")
    model = onnx.load(path)
    model.graph.node[1].op_type = "Sign"  # its gradient is zero everywhere
    onnx.save_model(model, path)
    modeler = GraphModeler({"theirs": str(path)}, (), cache)
    with pytest.raises(ModelError, match=r"it cannot be trained: .*base"):
        modeler.prepare(TaskSubmission(model="theirs"), DATA, scratch)


def test_a_file_is_refused_for_other_data(cache, scratch, tmp_path):
    modeler = GraphModeler({"theirs": str(own_file(tmp_path / "theirs.onnx"))}, (), cache)
    other = DATA.model_copy(update={"shape": (2, 2)})
    with pytest.raises(
        UnsafeModelError, match=r"takes examples of shape \(4,\), those .* \(2, 2\)"
    ):
        modeler.prepare(TaskSubmission(model="theirs"), other, scratch)
    other = DATA.model_copy(update={"classes": 7})
    with pytest.raises(
        UnsafeModelError, match=r"gives \(1, 3\) for 1 examples, \(1, 7\) is needed"
    ):
        modeler.prepare(TaskSubmission(model="theirs"), other, scratch)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"model": "vgg"}, "'vgg' is not known; known are .*theirs"),
        ({"model": "mlp", "model_params": {"depth": 2}}, r"model_params\.depth"),
        (
            {"model": "theirs", "model_params": {"depth": 2}},
            "theirs is an .onnx file, which has no",
        ),
        ({"model": "theirs", "requires": {"backend": "torch"}}, "requires.backend: theirs is an"),
    ],
)
def test_what_a_person_asked_wrongly_is_told_by_name_alone(fields, cause, tmp_path):
    modeler = GraphModeler({"theirs": "nowhere.onnx"}, (), tmp_path)
    with pytest.raises(ModelError, match=cause):
        modeler.check(TaskSubmission.model_validate(fields))
    assert not list(tmp_path.iterdir())


def test_every_operator_with_a_gradient_rule_may_come_in_a_file():
    assert {name for name in supported() if rules_for(name)} <= FORWARD_OPERATORS
