"""The reverse pass: gradients add up, stop where they must, and are never silently missing."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper, parser

from central.modeling.training_graph.backward import backpropagate, emit_forward
from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.preparation import prepare
from tests.support.gradient_check import Case, check, gradient_graph, values


def prepared(body, **parameters):
    return prepare(Case("small", body, parameters=parameters).model(), list(parameters))


def refused(body, *targets, **parameters):
    with pytest.raises(UnsupportedModelError) as caught:
        gradient_graph(prepared(body, **parameters), targets)
    return caught.value


def test_gradients_of_every_use_add_up():
    case = Case(
        "four uses",
        "a = Mul(input, w) b = Mul(a, w) c = Tanh(a) d = Add(b, c) y = Mul(d, a)",
        parameters={"w": values(3)},
        torch=lambda x, w: (x * w * w + torch.tanh(x * w)) * (x * w),
    )
    check(case)


def test_a_tensor_used_twice_by_one_node_gets_both_gradients():
    case = Case(
        "twice",
        "a = Mul(input, w) y = Sum(a, a, a)",
        parameters={"w": values(3)},
        torch=lambda x, w: 3 * x * w,
    )
    check(case)


def test_a_cast_to_double_and_back_keeps_the_gradient():
    case = Case(
        "double",
        "t = Mul(input, w) d = Cast <to = 11> (t) l = ReduceLogSumExp <keepdims = 0> (d, a)"
        " y = Cast <to = 1> (l)",
        parameters={"w": values(3)},
        constants={"a": np.array([1])},
        torch=lambda x, w: (x * w).logsumexp(1),
    )
    check(case)


def test_a_trainable_behind_whole_numbers_does_not_reach_the_loss():
    error = refused(
        "k = ArgMax <axis = 1> (v) f = Cast <to = 1> (k) z = Mul(input, w) y = Add(z, f)",
        "w",
        "v",
        w=values(3),
        v=values(1, 3),
    )
    assert "1 trainable tensors do not influence the loss: 'v'" in str(error)
    assert "freeze them by name" in str(error)


def test_a_trainable_that_nothing_uses_does_not_reach_the_loss():
    assert "'v'" in str(refused("y = Mul(input, w)", "w", "v", w=values(3), v=values(3)))


def test_an_operator_without_a_rule_is_named_with_its_node():
    error = refused("[odd] t = Det(w) y = Mul(input, t)", "w", w=values(3, 3))
    assert error.node == "odd"
    assert error.operator == "Det"
    assert "node 'odd' (Det): there is no gradient rule for this operator" in str(error)
    assert "requires.backend to torch" in str(error)


def test_a_node_without_a_name_is_found_by_its_output():
    assert refused("t = Det(w) y = Mul(input, t)", "w", w=values(3, 3)).node == "t"


def test_an_operator_without_a_rule_is_no_obstacle_where_no_gradient_passes():
    model = gradient_graph(
        prepared("h = Hardmax(input) y = Mul(h, w)", w=values(3)),
        ["w"],
    )
    assert "Hardmax" in {node.op_type for node in model.graph.node}


def test_an_input_that_a_rule_forgets_is_an_error_and_not_a_zero():
    graph = Case(
        "pad",
        "y = Pad(input, p, v)",
        parameters={"v": np.float32(1)},
        constants={"p": np.array([0, 1, 0, 1])},
    ).model()
    with pytest.raises(UnsupportedModelError, match=r"\(Pad\): .* its input 'v'"):
        gradient_graph(prepare(graph, ["v"]), ["v"])


def test_frozen_tensors_cost_no_backward_node():
    body = "a = MatMul(input, w) b = Tanh(a) y = MatMul(b, v)"
    graph = prepared(body, w=values(3, 3), v=values(3, 2))
    count = {
        targets: sum(
            node.op_type in {"MatMul", "Gemm"}
            for node in gradient_graph(graph, targets).graph.node
        )
        for targets in (("v",), ("w",), ("w", "v"))
    }
    assert count == {("v",): 3, ("w",): 4, ("w", "v"): 5}


def test_only_what_the_outputs_need_is_in_the_graph():
    graph = prepared("unused = Exp(input) y = Mul(input, w)", w=values(3))
    operators = [node.op_type for node in gradient_graph(graph, ["w"]).graph.node]
    assert "Exp" not in operators


def test_the_graph_is_of_standard_operators_and_of_the_oldest_format():
    model = gradient_graph(prepared("t = Mul(input, w) y = Erf(t)", w=values(3)), ["w"])
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert {node.domain for node in model.graph.node} == {""}


def test_a_loss_of_the_graph_itself_is_put_together_and_differentiated():
    text = (
        '<ir_version: 8, opset_import: ["" : 18]>\n'
        "f (float[batch, 3] input, int64[batch] labels) => (float y)"
        " { s = MatMul(input, w) y = SoftmaxCrossEntropyLoss(s, labels) }"
    )
    model = parser.parse_model(text)
    w = values(3, 4)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    graph = prepare(model, ["w"])
    session = onnxruntime.InferenceSession(
        gradient_graph(graph, ["w"]).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x, labels = values(5, 3), np.array([0, 3, 1, 1, 2])
    feeds = {"input": x, "labels": labels, "w": w, "seed": np.array(1, np.float32)}
    y, got = session.run(None, feeds)
    leaf = torch.from_numpy(w.copy()).requires_grad_()
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(x) @ leaf, torch.from_numpy(labels))
    loss.backward()
    np.testing.assert_allclose(y, loss.item(), rtol=1e-6)
    np.testing.assert_allclose(got, leaf.grad.numpy(), atol=1e-6)


def test_several_seeds_add_up():
    text = (
        '<ir_version: 8, opset_import: ["" : 18]>\n'
        "f (float[batch, 3] input) => (float a, float b) { a = Mul(input, w) b = Tanh(a) }"
    )
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(values(3), "w"))
    graph = prepare(model, ["w"]).graph
    builder = GraphBuilder(graph)
    w = builder.release("w")
    nodes = emit_forward(builder, graph, ["w"])
    ones = builder.emit("Add", builder.zeros("a"), builder.scalar(1))
    found = backpropagate(builder, nodes, {"a": ones, "b": ones}, ["w"])
    output = helper.make_tensor_value_info(found["w"], onnx.TensorProto.FLOAT, [3])
    given = helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3])
    result = builder.finish("seeds", [*graph.input, given], [output])
    session = onnxruntime.InferenceSession(
        result.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = values(4, 3)
    (got,) = session.run(None, {"input": x, "w": w})
    slope = 1 + 1 - np.tanh(x * w) ** 2
    np.testing.assert_allclose(got, (slope * x).sum(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("equation", "complaint"),
    [
        ("bi,ii->bi", "a diagonal"),
        ("...i,ij->...j", "an ellipsis"),
        ("bi,ij", "no arrow"),
        ("bk,kj->bj", "broadcasts 'k'"),
    ],
)
def test_an_equation_beyond_the_rule_is_refused(equation, complaint):
    body = f'y = Einsum <equation = "{equation}"> (input, w)'
    shape = (1, 3) if "k" in equation else (3, 3)
    assert complaint in str(refused(body, "w", w=values(*shape)))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("k = ArgMax <axis = 1> (input) y = Gather <axis = 0> (input, k)", "follows the batch"),
        ("y = Slice(input, one, two, none)", "follows the batch|must be numbers"),
        ("y = ReduceProd <keepdims = 0> (input, both)", "over several axes"),
        ('y = ScatterElements <axis = 1, reduction = "max"> (input, places, w)', "'max'"),
        ("y = ReduceSum <noop_with_empty_axes = 1> (input)", "over no axis"),
    ],
)
def test_what_a_rule_cannot_do_is_refused_with_its_reason(body, complaint):
    constants = {
        "one": np.array([1]),
        "two": np.array([2]),
        "none": np.array([0]),
        "both": np.array([0, 1]),
        "places": np.array([[0]]),
    }
    model = Case("no", body, parameters={"w": values(1, 1)}, constants=constants).model()
    with pytest.raises(UnsupportedModelError, match=complaint) as caught:
        gradient_graph(prepare(model, ["w"]), ["input"])
    assert caught.value.operator in body
