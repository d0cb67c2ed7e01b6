"""Forward graphs of torch factories and of .onnx files."""

import sys
import textwrap

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from central.modeling import sources
from central.modeling.export import inference_model
from central.modeling.forward import ForwardGraph, name_ends
from central.modeling.requests import ModelRequest
from central.modeling.running import ForwardSession
from central.modeling.sources import torch_modules
from central.modeling.trial import check_by_running
from central.modeling.unsafe import UnsafeModelError
from learning.models.architectures import ModelError


class Everything(nn.Module):
    """Batch normalization, dropout in three places, buffers, an unused layer, attention."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.randn(5, 16))
        self.norm = nn.BatchNorm1d(5)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True)
        self.dropout = nn.Dropout(0.25)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(16, 3)
        self.head.bias.requires_grad_(False)

    def forward(self, x):
        return self.head(self.dropout(self.encoder(self.norm(x + self.table))).mean(1))


@pytest.fixture(scope="module")
def everything():
    torch.manual_seed(0)
    module = Everything()
    return module, torch_modules.forward_graph(module, (5, 16))


def test_names_of_parameters_are_those_of_the_state(everything):
    module, forward = everything
    floats = {name for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    assert set(forward.parameters) == floats
    for name, value in forward.values().items():
        np.testing.assert_array_equal(value, module.state_dict()[name].numpy())


def test_buffers_and_what_the_logits_do_not_depend_on_are_fixed(everything):
    assert everything[1].fixed == ("head.bias", "table", "unused.bias", "unused.weight")


def test_batch_normalization_stays_one_node(everything):
    operators = [node.op_type for node in everything[1].model.graph.node]
    assert operators.count("BatchNormalization") == 1


def test_every_dropout_drops_out_unless_training_mode_is_off(everything):
    module, forward = everything
    graph = forward.model.graph
    dropouts = [node for node in graph.node if node.op_type == "Dropout"]
    assert len(dropouts) == 5  # attention, three of the encoder layer, the last
    assert {node.input[2] for node in dropouts} == {"training_mode"}
    x = np.random.default_rng(0).standard_normal((4, 5, 16)).astype(np.float32)
    module.eval()
    with torch.inference_mode():
        expected = module(torch.from_numpy(x)).numpy()
    off = ForwardSession(forward.to_bytes()).run(x, {})[0]
    np.testing.assert_allclose(off, expected, atol=1e-5)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Its optimizer takes out a Dropout whose mask nobody looks at, which backward passes do.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(forward.model.SerializeToString(), options)
    on = session.run(None, {"input": x})[0]
    assert np.abs(on - off).max() > 0.01
    assert "Dropout" not in {node.op_type for node in inference_model(forward).graph.node}


def test_a_graph_is_read_back_from_its_file_as_it_was(everything, tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(everything[1].to_bytes())
    again = ForwardGraph.load(path)
    assert again == everything[1]
    assert again.to_bytes() == path.read_bytes()


class Unstable(nn.Module):
    """Computes something else every time, so no export of it can be right."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


def test_a_graph_that_computes_something_else_is_refused():
    with pytest.raises(ModelError, match="its ONNX form gives other outputs: they differ by"):
        torch_modules.forward_graph(Unstable(), (3,))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)


def test_what_torch_cannot_export_is_told():
    with pytest.raises(ModelError, match="torch cannot export it"):
        torch_modules.forward_graph(Untraceable(), (3,))


def request(target=None, model="own", shape=(4,), classes=3, seed=0, **params):
    return ModelRequest(
        model=model, params=params, shape=shape, classes=classes, seed=seed, target=target
    )


FACTORY = """
    from torch import nn
    from own_parts import WIDTH
    def make(input_shape, classes, *, depth=1):
        layers = [nn.Linear(input_shape[0], WIDTH)] + [nn.Linear(WIDTH, WIDTH)] * (depth - 1)
        return nn.Sequential(*layers, nn.Linear(WIDTH, classes))
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    package = tmp_path / "own_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        textwrap.dedent(FACTORY).replace("own_parts", "own_models.parts")
    )
    (package / "parts.py").write_text("WIDTH = 6\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.startswith("own_models")]:
        del sys.modules[name]


def test_a_factory_of_the_settings_is_exported_with_its_settings(factory):
    forward = sources.build(request("own_models.nets:make", depth=2))
    assert forward.parameters == ("0.bias", "0.weight", "1.bias", "1.weight", "2.bias", "2.weight")
    assert forward.values()["1.weight"].shape == (6, 6)


def test_the_key_is_one_of_request_code_and_seed(factory):
    base = sources.key_of(request("own_models.nets:make"))
    assert sources.key_of(request("own_models.nets:make")) == base
    others = [
        sources.key_of(request("own_models.nets:make", seed=1)),
        sources.key_of(request("own_models.nets:make", depth=2)),
        sources.key_of(request("own_models.nets:make", shape=(5,))),
        sources.key_of(request("own_models.nets:make", classes=4)),
        sources.key_of(request("own_models.nets:other")),
        sources.key_of(request(model="mlp")),
    ]
    (factory / "parts.py").write_text("WIDTH = 77\n")
    others.append(sources.key_of(request("own_models.nets:make")))
    assert len({base, *others}) == 8


def test_the_key_of_a_file_is_one_of_its_content_whatever_its_name(tmp_path):
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(b"one")
    second.write_bytes(b"one")
    key = sources.key_of(request(str(first)))
    assert sources.key_of(request(str(second), seed=5)) == key
    second.write_bytes(b"another")
    assert sources.key_of(request(str(second))) != key
    with pytest.raises(ModelError, match=r"gone\.onnx cannot be read: No such file"):
        sources.key_of(request(str(tmp_path / "gone.onnx")))


def weight(name="w", shape=(4, 3), seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def saved(  # noqa: PLR0913
    path, nodes, initializers, *, inputs=("x",), outputs=("y",), opset=18, batch="N"
):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 4]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3]) for name in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.save_model(model, path)
    return request(str(path))


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def test_a_file_is_a_model_with_its_initializers_as_parameters(tmp_path):
    made = saved(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], [weight()])
    forward = sources.build(made)
    check_by_running(forward, made)
    assert forward.parameters == ("w",)
    graph = forward.model.graph
    assert ([one.name for one in graph.input], [one.name for one in graph.output]) == (
        ["input"],
        ["logits"],
    )
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_names_that_the_form_needs_for_itself_are_moved_away(tmp_path):
    nodes = [node("MatMul", ["logits", "input"], ["h"]), node("Relu", ["h"], ["y"])]
    made = saved(tmp_path / "m.onnx", nodes, [weight("input")], inputs=("logits",))
    forward = sources.build(made)
    check_by_running(forward, made)
    assert forward.parameters == ("input_0",)


def test_inputs_and_outputs_may_swap_their_names():
    graph = helper.make_graph([node("Relu", ["logits"], ["input"])], "g", [], [])
    model = helper.make_model(graph)
    name_ends(model, {"logits": "input", "input": "logits"})
    assert (model.graph.node[0].input[0], model.graph.node[0].output[0]) == ("input", "logits")


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 20])
def test_files_of_older_and_newer_opsets_become_one_of_18(tmp_path, opset):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["y"], axis=1)]
    made = saved(tmp_path / "m.onnx", nodes, [weight()], opset=opset)
    forward = sources.build(made)
    check_by_running(forward, made)
    assert [(one.domain, one.version) for one in forward.model.opset_import] == [("", 18)]


def test_an_operator_that_opset_18_lacks_is_told(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Gelu", ["h"], ["y"])]
    with pytest.raises(UnsafeModelError, match=r"cannot be made 18: .*Gelu.*export with opset 18"):
        sources.build(saved(tmp_path / "m.onnx", nodes, [weight()], opset=20))


def test_a_mask_that_is_not_finite_is_no_parameter(tmp_path):
    mask = numpy_helper.from_array(np.array([0, 0, -np.inf], np.float32), "mask_")
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "mask_"], ["y"])]
    forward = sources.build(saved(tmp_path / "m.onnx", nodes, [weight(), mask]))
    assert (forward.parameters, forward.fixed) == (("w",), ("mask_",))


def test_a_file_with_a_batch_of_one_is_freed_where_its_graph_allows(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    made = saved(tmp_path / "m.onnx", nodes, [weight()], batch=1)
    check_by_running(sources.build(made), made)


def test_only_a_dropout_that_is_meant_for_training_drops_out(tmp_path):
    ratio = numpy_helper.from_array(np.float32(0.5), "ratio")
    true = numpy_helper.from_array(np.array(True), "true")
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Dropout", ["h", "ratio"], ["i"]),
             node("Dropout", ["i", "ratio", "true"], ["y"])]  # fmt: skip
    forward = sources.build(saved(tmp_path / "m.onnx", nodes, [weight(), ratio, true]))
    found = [list(one.input)[2:] for one in forward.model.graph.node if one.op_type == "Dropout"]
    assert found == [[], ["training_mode"]]


def test_a_file_that_takes_other_examples_is_refused(tmp_path):
    made = saved(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], [weight()])
    other = made.model_copy(update={"shape": (5,)})
    with pytest.raises(
        UnsafeModelError, match=r"m\.onnx: trial: it takes examples of shape \(4,\)"
    ):
        check_by_running(sources.build(other), other)
