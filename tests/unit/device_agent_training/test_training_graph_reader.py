"""What a device lets through of a training graph that somebody else has made."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from device_agent.training.graph_reader import FLOAT, GraphError, TensorType, read_graph
from device_agent.training.protobuf import ProtobufError, fields


def a_model(nodes=None, initializers=(), domains=("",), **more):
    nodes = nodes or [helper.make_node("Identity", ["x"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        list(initializers),
    )
    opsets = [helper.make_opsetid(domain, 18) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def read(model):
    return read_graph(model.SerializeToString())


def refused(model, text):
    with pytest.raises(GraphError, match=text):
        read(model)


def test_inputs_outputs_metadata_and_stored_tensors_are_read():
    stored = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    model = a_model(initializers=[stored])
    helper.set_model_props(model, {"fedfleet.padding": "forbidden"})
    found = read(model)
    assert found.inputs == {"x": TensorType(FLOAT, (None, 3))}
    assert found.outputs == {"y": TensorType(FLOAT, ())}
    assert found.metadata == {"fedfleet.padding": "forbidden"}
    assert found.nodes == 1
    np.testing.assert_array_equal(found.floats("w"), [[0, 1, 2], [3, 4, 5]])
    assert found.floats("absent") is None


def test_floats_that_are_not_raw_bytes_are_read_as_well():
    listed = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.5, -2.0])
    whole = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    found = read(a_model(initializers=[listed, whole]))
    assert found.floats("w").tolist() == [1.5, -2.0]
    assert found.floats("i") is None


def test_a_stored_tensor_whose_bytes_do_not_fit_its_shape_is_refused():
    short = TensorProto(name="w", data_type=FLOAT, dims=[3], raw_data=b"\0" * 8)
    with pytest.raises(GraphError, match="tensor 'w'"):
        read(a_model(initializers=[short])).floats("w")


def test_operators_of_other_domains_are_refused_by_name():
    node = helper.make_node("FusedGelu", ["x"], ["y"], domain="com.microsoft")
    refused(a_model([node]), "operator 'FusedGelu' of domain 'com.microsoft'; only standard")
    refused(a_model(domains=("", "ai.onnx.training")), "operator set of domain 'ai.onnx.training'")


def test_operators_of_other_domains_are_found_in_nested_graphs():
    inner = a_model([helper.make_node("Odd", ["x"], ["y"], domain="odd")]).graph
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    refused(a_model([node]), "operator 'Odd' of domain 'odd'")


def test_graphs_that_nest_too_deep_are_refused():
    model = a_model()
    for _ in range(10):
        node = helper.make_node("If", ["x"], ["y"], then_branch=model.graph)
        model = a_model([node])
    refused(model, "nested deeper than 8")


def outside(name="w"):
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def test_data_outside_of_the_file_is_refused_wherever_it_is_named():
    refused(a_model(initializers=[outside()]), "tensor 'w' lies outside of the file")
    constant = helper.make_node("Constant", [], ["y"], value=outside("c"))
    refused(a_model([constant]), "tensor 'c' lies outside of the file")
    without_location = outside()
    without_location.ClearField("data_location")
    refused(a_model(initializers=[without_location]), "lies outside of the file")


def test_functions_training_information_and_sparse_tensors_are_refused():
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    refused(a_model(functions=[function]), "functions or training information")
    model = a_model()
    model.training_info.add()
    refused(model, "functions or training information")
    sparse = a_model()
    sparse.graph.sparse_initializer.add()
    refused(sparse, "sparse tensor")


@pytest.mark.parametrize(
    "data", [b"", b"\x08", b"not a model at all", b"\x3a\xff\xff\x03", b"\x0b"]
)
def test_what_is_no_onnx_file_is_refused(data):
    with pytest.raises(GraphError, match="graph: "):
        read_graph(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        read_graph(data)
    except GraphError:
        return


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_model_that_was_tampered_with_is_read_or_refused(data):
    whole = bytearray(a_model(initializers=[outside()]).SerializeToString())
    index = data.draw(st.integers(0, len(whole) - 1))
    whole[index] = data.draw(st.integers(0, 255))
    try:
        read_graph(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    except GraphError:
        return


def test_a_number_longer_than_any_is_refused():
    with pytest.raises(ProtobufError, match="cut off or longer than 10 bytes"):
        list(fields(memoryview(b"\x08" + b"\x80" * 11 + b"\x01")))
