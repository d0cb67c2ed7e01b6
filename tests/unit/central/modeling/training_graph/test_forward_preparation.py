"""Any forward graph in the form that the rules expect, or a refusal that says what to do."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from central.modeling.training_graph import preparation
from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.preparation import prepare
from tests.support.gradient_check import Case, check, values


def model_of(text, opset=18, **initializers):
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\n'
        f"forward (float[batch, 2, 3] input) => (float y) {{ {text} }}"
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()
    )
    return model


def operators(model):
    return [node.op_type for node in model.graph.node]


def run(model, batch):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {session.get_inputs()[0].name: batch})[0]


BATCH = values(4, 2, 3)


def test_constants_become_initializers_and_what_follows_of_them_is_computed_once():
    model = model_of(
        "one = Constant <value_float = 1.0> () two = Add(one, one) shape = Constant"
        " <value_ints = [-1, 6]> () f = Reshape(input, shape) s = Mul(f, two) y = MatMul(s, w)",
        w=values(6, 2),
    )
    prepared = prepare(model, ["w"])
    assert operators(prepared) == ["Reshape", "Mul", "MatMul"]
    np.testing.assert_array_equal(GraphBuilder(prepared.graph).values["two"], 2)
    np.testing.assert_allclose(run(prepared, BATCH), run(model, BATCH))


def test_a_trainable_is_never_taken_for_a_constant():
    model = model_of("t = Transpose(w) u = Exp(t) y = MatMul(input, u)", w=values(2, 3))
    assert operators(prepare(model, ["w"])) == ["Transpose", "Exp", "MatMul"]
    assert operators(prepare(model, [])) == ["MatMul"]


def test_shapes_that_do_not_follow_the_batch_are_computed_once():
    model = model_of(
        "s = Shape(input) c = Gather(s, one) d = Gather(s, two) m = Mul(c, d)"
        " u = Unsqueeze(m, zero) to = Concat <axis = 0> (rest, u) f = Reshape(input, to)"
        " y = MatMul(f, w)",
        w=values(6, 2),
        one=np.int64(1),
        two=np.int64(2),
        zero=np.array([0]),
        rest=np.array([-1]),
    )
    prepared = prepare(model, ["w"])
    np.testing.assert_array_equal(GraphBuilder(prepared.graph).values["to"], [-1, 6])
    np.testing.assert_allclose(run(prepared, BATCH), run(model, BATCH))


def test_a_shape_that_follows_the_batch_stays_computed():
    model = model_of(
        "s = Shape <end = 1> (input) to = Concat <axis = 0> (s, rest) f = Reshape(input, to)"
        " y = MatMul(f, w)",
        w=values(6, 2),
        rest=np.array([6]),
    )
    prepared = prepare(model, ["w"])
    assert "to" not in GraphBuilder(prepared.graph).values
    for batch in (1, 4, 7):
        assert run(prepared, values(batch, 2, 3)).shape == (batch, 2)


def test_every_shape_and_type_is_known_and_says_what_follows_the_batch():
    model = model_of(
        "f = Reshape(input, flat) m = MatMul(f, w) g = Greater(m, zero) n = Shape(input)"
        " y = Reshape(m, back)",
        w=values(3, 2),
        flat=np.array([-1, 3]),
        zero=np.float32(0),
        back=np.array([-1, 4]),
    )
    builder = GraphBuilder(prepare(model, ["w"]).graph)
    assert builder.shapes["f"] == ("2*batch", 3)
    assert builder.shapes["y"] == ("batch", 4)
    assert builder.dtypes["g"] == onnx.TensorProto.BOOL


def test_random_numbers_are_drawn_anew_at_each_step():
    model = model_of(
        "r = RandomUniformLike(w) v = Mul(w, r) y = MatMul(input, v)",
        w=values(3, 2),
    )
    assert "RandomUniformLike" in operators(prepare(model, []))


def test_a_large_tensor_of_one_value_stays_a_node():
    model = model_of(
        "z = ConstantOfShape(large) s = ReduceSum <keepdims = 0> (z) y = Mul(input, s)",
        large=np.array([5000, 5000]),
    )
    prepared = prepare(model, [])
    assert "ConstantOfShape" in operators(prepared)
    assert prepared.ByteSize() < 10_000


def test_an_operator_without_a_rule_is_put_together_from_others():
    case = Case(
        "MeanVarianceNormalization",
        "t = Mul(input, w) y = MeanVarianceNormalization <axes = [2]> (t)",
        (2, 4),
        {"w": values(2, 4)},
        torch=lambda x, w: _standardised(x * w, 2),
    )
    check(case)


def test_a_function_with_defaults_keeps_them_where_it_is_put_together():
    case = Case(
        "MeanVarianceNormalization over its default axes",
        "t = Mul(input, w) y = MeanVarianceNormalization(t)",
        (2, 2, 2),
        {"w": values(2, 2, 2)},
        torch=lambda x, w: _standardised(x * w, (0, 2, 3)),
    )
    check(case)


def _standardised(t, axes):
    return (t - t.mean(axes, keepdim=True)) / t.std(axes, keepdim=True, correction=0)


def test_local_functions_are_put_in_their_place():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18, "mine" : 1]>\n'
        "forward (float[batch, 3] input) => (float y) { y = mine.twice(input) }\n"
        '<domain: "mine", opset_import: ["" : 18]> twice (a) => (b) { b = Add(a, a) }'
    )
    prepared = prepare(model, [])
    assert operators(prepared) == ["Add"]
    assert [(item.domain, item.version) for item in prepared.opset_import] == [("", 18)]


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (11, "s = ReduceMean <axes = [1], keepdims = 0> (input) y = Mul(s, w)"),
        (12, "s = ReduceSum <axes = [1], keepdims = 0> (input) y = Mul(s, w)"),
        (11, "s = Unsqueeze <axes = [1]> (input) y = Mul(s, w)"),
        (13, "s = Softmax <axis = 1> (input) y = Mul(s, w)"),
        (21, "s = Sigmoid(input) y = Mul(s, w)"),
    ],
)
def test_older_and_newer_opsets_are_converted(opset, text):
    model = model_of(text, opset, w=values(3))
    prepared = prepare(model, ["w"])
    assert {item.version for item in prepared.opset_import} == {18}
    np.testing.assert_allclose(run(prepared, BATCH), run(model, BATCH), rtol=1e-5)
    assert "w" in {tensor.name for tensor in prepared.graph.initializer}


def test_initializers_among_the_inputs_are_parameters_all_the_same():
    model = model_of("y = Mul(input, w)", w=values(3))
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3]))
    assert [info.name for info in prepare(model, ["w"]).graph.input] == ["input"]


def test_the_given_model_stays_as_it_is():
    model = model_of("c = Constant <value_float = 2.0> () y = Mul(input, c)")
    before = model.SerializeToString()
    prepare(model, [])
    assert model.SerializeToString() == before


def test_an_operator_of_another_domain_is_refused_by_name():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>\n'
        "f (float[batch, 3] input) => (float y) { [odd] y = com.microsoft.FusedGemm(input) }"
    )
    with pytest.raises(UnsupportedModelError, match=r"com\.microsoft\.FusedGemm") as caught:
        prepare(model, [])
    assert caught.value.operator == "com.microsoft.FusedGemm"


def test_control_flow_is_refused():
    model = model_of(
        "m = ReduceMean <keepdims = 0> (input) c = Greater(m, zero)"
        " y = If (c) <then_branch = a () => (float p) { p = Identity(input) },"
        " else_branch = b () => (float q) { q = Neg(input) }>",
        zero=np.float32(0),
    )
    with pytest.raises(UnsupportedModelError, match=r"\(If\): control flow .* without branches"):
        prepare(model, [])


def test_a_second_free_axis_is_refused():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>\n'
        "f (float[batch, time] input) => (float y) { y = Tanh(input) }"
    )
    with pytest.raises(UnsupportedModelError, match="axis 1 of its input 'input' has no fixed"):
        prepare(model, [])


def test_a_batch_that_is_fixed_inside_is_refused_with_what_the_runtime_says():
    model = model_of("f = Reshape(input, to) y = Tanh(f)", to=np.array([4, 6]))
    with pytest.raises(UnsupportedModelError, match="does not run it at batches") as caught:
        prepare(model, [])
    assert "first axis of its inputs dynamic" in str(caught.value)


def test_a_batch_that_is_fixed_in_the_input_alone_is_freed():
    model = model_of("y = Tanh(input)")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    assert GraphBuilder(prepare(model, []).graph).shapes["y"] == ("batch", 2, 3)


def test_a_list_that_is_not_split_off_a_tensor_is_refused():
    model = model_of(
        "l = SequenceConstruct(input, input) y = SequenceAt(l, i)",
        i=np.int64(0),
    )
    with pytest.raises(UnsupportedModelError, match=r"SequenceAt.*SplitToSequence"):
        prepare(model, [])


def test_batch_normalization_exported_in_training_mode_is_taken_as_the_plain_one():
    model = model_of(
        "y, m, v = BatchNormalization <training_mode = 1> (input, s, b, mean, var)",
        s=values(2, low=0.5),
        b=values(2),
        mean=values(2),
        var=values(2, low=0.5),
    )
    (node,) = prepare(model, []).graph.node
    assert list(node.output) == ["y"]
    assert not node.attribute


def test_a_graph_that_computes_something_else_after_preparation_is_refused(monkeypatch):
    model = model_of("y = Mul(input, w)", w=values(3))

    def broken(model):
        model.graph.node[0].op_type = "Add"
        return False

    monkeypatch.setattr(preparation, "_rewrite", broken)
    with pytest.raises(UnsupportedModelError, match="output 'y' changed"):
        prepare(model, ["w"])


def test_what_equals_at_the_probed_batches_by_chance_is_noticed():
    model = model_of(
        "s = Shape <end = 1> (input) c = Greater(s, five) f = Cast <to = 1> (c) y = Mul(input, f)",
        five=np.array([5]),
    )
    with pytest.raises(UnsupportedModelError, match="output 'y' changed"):
        prepare(model, [])
