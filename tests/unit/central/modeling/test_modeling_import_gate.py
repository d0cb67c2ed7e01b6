"""Hostile and broken .onnx files, each made here, each refused by the gate that it is for."""

import os
import resource
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from central.modeling import process
from central.modeling.forward_store import ForwardStore
from central.modeling.import_gate import GateLimits, read_model
from central.modeling.limits import ProcessLimits
from central.modeling.operators import FORWARD_OPERATORS
from central.modeling.requests import ModelRequest
from central.modeling.unsafe import UnsafeModelError
from schemas.tasks import Training

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
#: What one refusal may take: of the address space, of CPU time, of resident memory, of patience.
LIMITS = ProcessLimits(memory_bytes=3 << 30, cpu_s=20)
#: Less CPU time where that is what runs out.
SHORT = ProcessLimits(memory_bytes=LIMITS.memory_bytes, cpu_s=4)
RESIDENT_BYTES = 1 << 30
PATIENCE_S = 60.0


def weight(name="w", shape=(4, 3)):
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, list(inputs), list(outputs), name=f"n_{op}", **attributes)


MATMUL = node("MatMul", ["x", "w"], ["y"])


def value(name, shape, kind=F32):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes=(MATMUL,), initializers=None, *, inputs=None, outputs=None, opset=18, **more):
    graph = helper.make_graph(
        list(nodes),
        "g",
        inputs or [value("x", ["batch", 4])],
        outputs or [value("y", ["batch", "classes"])],
        [weight()] if initializers is None else list(initializers),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    made.ir_version = 8
    return made


def external(location):
    tensor = weight()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model(initializers=[tensor])


def claimed_by_dims():
    tensor = weight()
    tensor.dims[:] = (1 << 20, 1 << 20)
    return model(initializers=[tensor])


def overflowing_dims():
    tensor = weight()
    tensor.dims[:] = (1 << 32, 1 << 32)  # 2**64 values: nothing, in 64 bits
    tensor.raw_data = b""
    return model(initializers=[tensor])


def negative_dims():
    tensor = weight()
    tensor.dims[:] = (-4, -3)
    return model(initializers=[tensor])


def string_tensor():
    return model(initializers=[helper.make_tensor("w", TensorProto.STRING, [1], [b"text"])])


def custom_domain():
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"], domain="com.evil")])
    made.opset_import.append(helper.make_opsetid("com.evil", 1))
    return made


def cyclic():
    return model([node("Add", ["x", "b"], ["a"]), node("Add", ["a", "x"], ["b"]),
                  node("MatMul", ["b", "w"], ["y"])])  # fmt: skip


def loop():
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"])], "body",
        [value("i", [], I64), value("go", [], TensorProto.BOOL)],
        [value("on", [], TensorProto.BOOL)],
    )  # fmt: skip
    return model([MATMUL, node("Loop", ["", "c"], [], body=body)],
                 [weight(), numpy_helper.from_array(np.array(True), "c")])  # fmt: skip


def nested(depth=12):
    inner = helper.make_graph([node("Identity", ["x"], ["z"])], "g", [], [value("z", None)])
    for _ in range(depth):
        branch = node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([branch], "g", [], [value("z", None)])
    return model([MATMUL, *inner.node], [weight(), numpy_helper.from_array(np.array(True), "c")])


def deep_bytes(depth=50_000):
    """A message in a message in a message: graph, node, attribute, graph, ..."""
    content = b""
    for tag in (b"\x32", b"\x2a", b"\x0a") * (depth // 3):
        content = tag + _varint(len(content)) + content if len(content) < 200_000 else content
    return b"\x3a" + _varint(len(content)) + content


def _varint(number):
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def giant(op):
    """Ask for 320 GB in a few bytes."""
    shape = ints("s", 80_000, 1_000_000)
    made = {
        "ConstantOfShape": [node("ConstantOfShape", ["s"], ["big"])],
        "Expand": [node("Expand", ["one", "s"], ["big"])],
        "Tile": [node("Tile", ["one", "s"], ["big"])],
    }[op]
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    summed = node("ReduceSum", ["big"], ["small"], keepdims=0)
    return model([*made, summed, product("w", "t"),
                  node("Add", ["t", "small"], ["y"])], [weight(), shape, one])  # fmt: skip


def product(right, out):
    return helper.make_node("MatMul", ["x", right], [out], name="product")


def hidden_giant():
    """Ask for it in a way that the shapes alone do not tell: the size is computed."""
    sizes = numpy_helper.from_array(np.array([8e4, 1e6], np.float32), "sizes")
    return model(
        [node("Exp", ["zero"], ["e"]), node("Mul", ["sizes", "e"], ["s_f"]),
         node("Cast", ["s_f"], ["s"], to=I64), node("ConstantOfShape", ["s"], ["big"]),
         node("ReduceSum", ["big"], ["small"], keepdims=0), product("w", "t"),
         node("Add", ["t", "small"], ["y"])],
        [weight(), sizes, numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )  # fmt: skip


def endless():
    """Few bytes, small values, but a day of work."""
    side = 8192
    start = [node("Expand", ["one", "s"], ["v0"])]
    steps = [
        helper.make_node("MatMul", [f"v{index}", f"v{index}"], [f"v{index + 1}"])
        for index in range(2000)
    ]
    end = [node("ReduceSum", ["v2000"], ["small"], keepdims=0), product("w", "t"),
           node("Add", ["t", "small"], ["y"])]  # fmt: skip
    one = numpy_helper.from_array(np.full((1, 1), 1e-4, np.float32), "one")
    return model([*start, *steps, *end], [weight(), ints("s", side, side), one])


def doubling_functions(levels=40):
    """A bomb of functions: each calls the one before it twice."""
    functions = []
    for level in range(levels):
        op, domain = ("Neg", "") if level == 0 else (f"f{level - 1}", "own")
        body = [helper.make_node(op, ["a"], ["b"], domain=domain),
                helper.make_node(op, ["b"], ["c"], domain=domain)]  # fmt: skip
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["c"], body, opsets))
    made = model([product("w", "t"),
                  helper.make_node(f"f{levels - 1}", ["t"], ["y"], domain="own")])  # fmt: skip
    made.functions.extend(functions)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def recursive_function():
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    body = [helper.make_node("f", ["a"], ["c"], domain="own")]
    made = model([product("w", "t"), helper.make_node("f", ["t"], ["y"], domain="own")])
    made.functions.append(helper.make_function("own", "f", ["a"], ["c"], body, opsets))
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def sparse():
    made = model()
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, ints("at", 0), [4, 3]))
    return made


def wrong_types():
    return model([node("MatMul", ["x", "k"], ["y"])],
                 [weight(), numpy_helper.from_array(np.ones((4, 3), np.int64), "k")])  # fmt: skip


def too_many_nodes():
    chain = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"]) for i in range(20_001)]
    return model([product("w", "v0"), *chain], outputs=[value("v20001", ["batch", 3])])


def fixed_batch():
    return model([node("Reshape", ["x", "s"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])],
                 [weight(), ints("s", 1, 4)])  # fmt: skip


HOSTILE = {
    "external data": (external("weights.bin"), "external_data", "lies in another file"),
    "a path out of the folder": (external("../../etc/passwd"), "external_data", "another file"),
    "an absolute path": (external("/etc/passwd"), "external_data", "another file"),
    "4 TiB claimed by dimensions": (claimed_by_dims(), "initializer", "claim 4398046511104 bytes"),
    "dimensions that overflow": (overflowing_dims(), "initializer", "claim 73786976294838206464"),
    "negative dimensions": (negative_dims(), "initializer", "dimensions"),
    "texts": (string_tensor(), "type", "of type string"),
    "a sparse tensor": (sparse(), "sparse", "sparse initializers"),
    "a domain of its own": (custom_domain(), "domain", "'com.evil'"),
    "an operator that is not allowed": (
        model([product("w", "t"), node("NonZero", ["t"], ["y"])]), "operator", "'NonZero'"),
    "an operator that does not exist": (
        model([product("w", "t"), node("Explode", ["t"], ["y"])]), "operator", "'Explode'"),
    "a circle": (cyclic(), "order", "'b' is used before"),
    "a loop": (loop(), "subgraph", "loops and branches"),
    "branches in branches": (nested(), "subgraph", "loops and branches"),
    "messages in messages": (deep_bytes(), "format", "nested too deep"),
    "a file cut off": (model().SerializeToString()[:-40], "format", "not an ONNX model"),
    "not protobuf": (b"<html>Not Found</html>" * 50, "format", "not an ONNX model"),
    "nothing": (b"", "format", "no node"),
    "a name given twice": (model(initializers=[weight(), weight()]), "names", "'w'"),
    "a value from nowhere": (model([node("MatMul", ["x", "gone"], ["y"])]), "names", "'gone'"),
    "an opset of the future": (model(opset=999), "opset", r"\[999\]"),
    "an opset of the past": (model(opset=3), "opset", r"\[3\]"),
    "types that do not fit": (wrong_types(), "shapes", "do not fit"),
    "shapes that do not fit": (model(initializers=[weight(shape=(5, 3))]), "shapes", "do not fit"),
    "320 GB by ConstantOfShape": (giant("ConstantOfShape"), "shapes", "320000000000 bytes"),
    "320 GB by Expand": (giant("Expand"), "shapes", "320000000000 bytes"),
    "320 GB by Tile": (giant("Tile"), "shapes", "320000000000 bytes"),
    "320 GB by a computed shape": (hidden_giant(), "trial", "cannot run|cannot load"),
    "a day of work": (endless(), "time", "more CPU time than is allowed"),
    "functions that double": (doubling_functions(), "nodes", "1099511627777 nodes"),
    "a function that calls itself": (recursive_function(), "functions", "'f' calls itself"),
    "too many nodes": (too_many_nodes(), "nodes", "20002 nodes, at most 20000"),
    "two inputs": (
        model(inputs=[value("x", ["batch", 4]), value("z", ["batch", 4])]), "input", "'x', 'z'"),
    "integers as input": (
        model([node("Cast", ["x"], ["f"], to=F32), helper.make_node("MatMul", ["f", "w"], ["y"])],
              inputs=[value("x", ["batch", 4], I64)]), "input", "must be float32"),
    "nothing to train": (
        model([node("Relu", ["x"], ["y"])], []), "parameters", "no float32 initializer"),
    "a batch that is fixed": (fixed_batch(), "trial", "cannot run|gives"),
    "other classes": (model(initializers=[weight(shape=(4, 7))]), "trial", r"\(1, 7\) for 1"),
}  # fmt: skip


def request_for(path):
    return ModelRequest(model="theirs", params={}, shape=(4,), classes=3, seed=0, target=str(path))


def prepare(path, tmp_path, limits=LIMITS):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return process.prepare(
        request_for(path),
        Training(),
        wants_graph=False,
        cache=tmp_path / "cache",
        scratch=scratch,
        limits=limits,
    )


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_within_limits(tmp_path, case):
    content, gate, cause = HOSTILE[case]
    path = tmp_path / "theirs.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    begun = time.monotonic()
    with pytest.raises(UnsafeModelError, match=cause) as caught:
        prepare(path, tmp_path, SHORT if gate == "time" else LIMITS)
    assert caught.value.gate == gate
    assert f"theirs.onnx: {gate}: " in str(caught.value)
    assert time.monotonic() - begun < PATIENCE_S
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < RESIDENT_BYTES
    assert not (tmp_path / "cache").exists()


def test_a_good_file_passes_the_same_limits(tmp_path):
    path = tmp_path / "ours.onnx"
    onnx.save_model(model(), path)
    outcome = prepare(path, tmp_path)
    assert ForwardStore(tmp_path / "cache").find(outcome.key) is not None


def test_memory_is_limited_by_the_kernel(tmp_path):
    path = tmp_path / "large.onnx"
    onnx.save_model(model(initializers=[weight(shape=(4, 3)), weight("v", (3000, 10_000))]), path)
    tight = ProcessLimits(memory_bytes=400 << 20, cpu_s=20)
    with pytest.raises(UnsafeModelError) as caught:
        prepare(path, tmp_path, tight)
    assert caught.value.gate in {"memory", "process"}


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, cause in (
        (pipe, "not a regular"),
        (tmp_path, "not a regular"),
        (tmp_path / "x", "No such"),
    ):
        with pytest.raises(UnsafeModelError, match=cause) as caught:
            read_model(path)
        assert caught.value.gate == "file"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space
    with pytest.raises(UnsafeModelError, match="1099511627776 bytes, at most") as caught:
        read_model(path)
    assert caught.value.gate == "size"


def test_a_value_is_bounded_by_the_limit_that_is_given(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save_model(model(), path)
    assert read_model(path, GateLimits(value_bytes=32)).graph.node
    with pytest.raises(UnsafeModelError, match="takes 32 bytes, at most 31"):
        read_model(path, GateLimits(value_bytes=31))


def test_functions_of_the_file_are_written_out(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save_model(doubling_functions(levels=3), path)
    graph = read_model(path).graph
    assert [entry.op_type for entry in graph.node] == ["MatMul", *["Neg"] * 8]


def test_no_operator_with_a_graph_of_its_own_is_allowed():
    for op in FORWARD_OPERATORS:
        schema = onnx.defs.get_schema(op)
        assert not [
            name
            for name, attribute in schema.attributes.items()
            if attribute.type
            in {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}
        ], op
