"""What a device lets through of a training graph that somebody else has made."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from device_agent.training.graph_reader import FLOAT, GraphError, TensorType, read_graph
from device_agent.training.protobuf import VARINT, Form, ProtobufError, fields


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


@pytest.mark.parametrize("name", ["If", "Loop", "Scan"])
def test_graphs_within_nodes_are_refused_since_a_loop_may_never_end(name):
    inner = a_model().graph
    refused(a_model([helper.make_node(name, ["x"], ["y"], body=inner)]), "a graph within a node")
    refused(a_model([helper.make_node(name, ["x"], ["y"], body=[inner])]), "graphs within a node")


def test_attributes_of_a_graphs_type_are_refused_even_without_the_graph():
    model = a_model()
    model.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
    refused(model, "an attribute is of type 5, which is not allowed")


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
    refused(a_model(functions=[function]), "functions, which is not allowed")
    model = a_model()
    model.training_info.add()
    refused(model, "training information, which is not allowed")
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
    form = Form("any", one={1: VARINT})
    for data in (b"\x08" + b"\x80" * 11 + b"\x01", b"\x08" + b"\xff" * 9 + b"\x02"):
        with pytest.raises(ProtobufError, match="cut off or longer than 10 bytes"):
            list(fields(memoryview(data), form))


def varint(value, size=0):
    """Return a number as it is written; ``size`` bytes of it at least."""
    data = bytearray()
    while value > LOW or len(data) + 1 < size:
        data.append(value & LOW | CONTINUES)
        value >>= 7
    return bytes([*data, value])


def field(number, content, *, cut=0, size=0):
    """Return a message's field; ``cut`` is added to its tag, which has ``size`` bytes at least."""
    data = content if isinstance(content, bytes) else content.SerializeToString()
    return varint((number << 3 | 2) + cut, size) + varint(len(data)) + data


CUT = 1 << 32
LOW, CONTINUES = 0x7F, 0x80
OWN = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")


def a_clean_file(*more):
    return a_model().SerializeToString() + b"".join(more)


HIDDEN = {
    "an operator set and a node behind tags of more than 32 bits": (
        a_clean_file(
            field(8, helper.make_opsetid("com.microsoft", 1), cut=CUT),
            field(7, onnx.GraphProto(node=[OWN]), cut=CUT),
        ),
        "tag at byte",
    ),
    "a tag of more than 5 bytes": (a_clean_file(field(8, b"", size=6)), "tag at byte"),
    "a second graph": (
        field(7, onnx.GraphProto(node=[OWN])) + a_clean_file(),
        "model: field 7 comes more than once",
    ),
    "field 0": (a_clean_file(field(0, b"")), "model: field 0 is not known"),
    "a group": (a_clean_file(b"\x3b\x3c"), "model: field 7 is of kind 3"),
    "an unknown field": (a_clean_file(field(99, b"")), "model: field 99 is not known"),
    "a field of another kind": (a_clean_file(b"\x38\x00"), "comes|kind"),
    "a domain named twice": (
        a_clean_file(field(8, field(1, b"com.microsoft") + field(1, b""))),
        "operator set: field 1 comes more than once",
    ),
}


@pytest.mark.parametrize(("file", "reason"), HIDDEN.values(), ids=HIDDEN.keys())
def test_what_parsers_read_differently_is_refused(file, reason):
    with pytest.raises(GraphError, match=reason):
        read_graph(file)


def with_tensor(content):
    graph = a_model().graph.SerializeToString() + field(5, content)
    return field(8, helper.make_opsetid("", 18)) + field(7, graph)


@pytest.mark.parametrize("number", [2, 14])
def test_a_tensors_type_and_place_of_more_than_32_bits_are_refused(number):
    content = field(8, b"w") + varint(number << 3) + varint(CUT + 1)
    with pytest.raises(GraphError, match="more than 31 bits"):
        read_graph(with_tensor(content))


@pytest.mark.parametrize(
    "kind",
    [
        field(1, varint(1 << 3) + varint(CUT + 1)),
        field(1, b"") + field(1, b""),
        field(1, field(2, b"") + field(2, b"")),
        field(1, field(2, field(1, varint(1 << 3) + b"\x03" + field(2, b"batch")))),
        field(4, b""),
    ],
)
@pytest.mark.parametrize("place", [11, 12, 13])
def test_types_that_can_be_read_in_two_ways_are_refused(kind, place):
    value = field(place, field(1, b"v") + field(2, kind))
    graph = field(7, a_model().graph.SerializeToString() + value)
    with pytest.raises(GraphError, match="graph: "):
        read_graph(graph)


def test_a_name_that_is_not_utf_8_is_refused():
    with pytest.raises(GraphError, match="not UTF-8"):
        read_graph(with_tensor(field(8, b"\xff")))
