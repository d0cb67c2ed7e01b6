"""The graph under construction: names, constants, shapes, and what of it is kept."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import defs, helper

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.rules import forward_for, rules_for, supported
from central.modeling.training_graph.terms import Term

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE

GRAPH = helper.make_graph(
    [helper.make_node("Identity", ["input"], ["y"], name="Add.1")],
    "forward",
    [
        helper.make_tensor_value_info("input", FLOAT, ["batch", 2, 3]),
        helper.make_tensor_value_info("d", DOUBLE, [4]),
    ],
    [helper.make_tensor_value_info("y", FLOAT, ["2*batch", 3])],
    [helper.make_tensor("w", FLOAT, [2], [1, 2])],
)


@pytest.fixture
def builder():
    return GraphBuilder(GRAPH)


def run(builder, output, shape, x):
    info = helper.make_tensor_value_info(output, FLOAT, shape)
    model = builder.finish("built", [GRAPH.input[0]], [info])
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {"input": x} if session.get_inputs() else {}
    return session.run(None, feeds)[0]


def test_fresh_names_avoid_those_of_the_forward_graph(builder):
    assert builder.emit("Add", "input", "input") == "Add.2"
    assert builder.emit("Add", "input", "input") != builder.nodes[0].output[0]


def test_equal_constants_are_stored_once_and_types_are_told_apart(builder):
    assert builder.scalar(1) == builder.constant(np.float32(1))
    assert builder.scalar(1) != builder.scalar(1, like="d")
    assert builder.constant([1], np.int64) == builder.integers(1)
    assert builder.integers(1) != builder.constant(1, np.int64)
    assert builder.dtype(builder.scalar(1, like="d")) == DOUBLE


def test_optional_inputs_and_attributes_are_left_out(builder):
    builder.emit("Resize", "input", None, "w", None, mode=None, antialias=0)
    assert list(builder.nodes[0].input) == ["input", "", "w"]
    assert [item.name for item in builder.nodes[0].attribute] == ["antialias"]


def test_shapes_tell_numbers_from_what_follows_the_batch(builder):
    assert builder.shape("input") == ("batch", 2, 3)
    assert builder.shape("y") == ("2*batch", 3)
    assert builder.static("input", [1, 2]) == [2, 3]
    with pytest.raises(UnsupportedModelError, match=r"'input' .*must be numbers"):
        builder.static("input")
    with pytest.raises(UnsupportedModelError, match="'unknown' is not known"):
        builder.shape("unknown")
    with pytest.raises(UnsupportedModelError, match="'unknown' is not known"):
        builder.dtype("unknown")


def test_a_released_initializer_is_no_constant_any_more(builder):
    np.testing.assert_array_equal(builder.release("w"), [1, 2])
    with pytest.raises(UnsupportedModelError, match="its weight must be constant"):
        builder.value("w", "its weight")


@pytest.mark.parametrize(
    ("narrow", "axes", "keeps"),
    [((2, 3), (0,), False), ((1, 3), (0, 1), True), ((3,), (0, 1), False), ((), (0, 1, 2), False)],
)
def test_a_gradient_is_summed_to_the_shape_that_was_broadcast(builder, narrow, axes, keeps):
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    output = builder.sum_to("input", ("batch", 2, 3), narrow)
    got = run(builder, output, list(narrow), x)
    np.testing.assert_allclose(got, x.sum(axes).reshape(narrow), rtol=1e-5)
    assert got.shape == narrow, keeps


def test_a_gradient_of_the_same_shape_is_left_alone(builder):
    assert builder.sum_to("input", ("batch", 2, 3), ("batch", 2, 3)) == "input"


def test_reshaping_and_zeros_follow_the_batch(builder):
    x = np.ones((4, 2, 3), np.float32)
    assert run(builder, builder.reshape("input", like="y"), ["n", 3], x).shape == (8, 3)
    zeros = builder.zeros("input")
    assert not run(builder, zeros, ["n", 2, 3], x).any()


def test_only_what_the_outputs_need_is_kept(builder):
    builder.emit("Exp", "input")
    kept = builder.emit("Mul", "input", builder.scalar(2))
    output = helper.make_tensor_value_info(kept, FLOAT, ["batch", 2, 3])
    model = builder.finish("built", [GRAPH.input[0]], [output])
    assert [node.op_type for node in model.graph.node] == ["Mul"]
    assert len(model.graph.initializer) == 1


def test_terms_compute_what_they_say(builder):
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    t = Term.of(builder, "input")
    term = (1 - t * 2) / (3 + -t * t / 8) + (2 * t).where((t > 0) & (t < 1), 1 / (t * t + 1))
    expected = (1 - x * 2) / (3 - x * x / 8) + np.where((x > 0) & (x < 1), 2 * x, 1 / (x * x + 1))
    got = run(builder, (term + t.only(t > 0)).name, ["batch", 2, 3], x)
    np.testing.assert_allclose(got, expected + np.maximum(x, 0), rtol=1e-5)


def test_every_operator_with_a_rule_exists_in_the_standard():
    assert {name for name in supported() if not defs.has(name, 18, "")} == set()


def test_an_operator_has_a_rule_or_stops_the_gradient_but_not_both():
    assert rules_for("MatMul") is not None
    assert rules_for("Shape") is None
    assert forward_for("MatMul") is None
    assert {"Shape", "MatMul"} <= supported()
