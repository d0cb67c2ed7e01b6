"""``fedfleet model``: check, bench, export."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from fedfleet.cli import cli
from updates import codecs


def run(*arguments):
    return CliRunner().invoke(cli, ["model", *map(str, arguments)])


def saved(path, middle="Tanh", location=None):
    rng = np.random.default_rng(3)
    tensors = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("base", (4, 8)), ("head", (8, 3)))
    ]
    if location:
        tensors[0].ClearField("raw_data")
        tensors[0].data_location = TensorProto.EXTERNAL
        tensors[0].external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "base"], ["h"]),
            helper.make_node(middle, ["h"], ["t"]),
            helper.make_node("MatMul", ["t", "head"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def test_check_tells_how_a_file_can_be_trained(tmp_path):
    result = run("check", saved(tmp_path / "net.onnx"), "--batch", 8, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["trainable"]
    assert (found["input"], found["output"]) == ([4], [3])
    assert (found["parameters"], found["trained"], found["frozen"]) == (56, 56, 0)
    assert found["operators"] == {"MatMul": 2, "Tanh": 1}
    assert found["batch_bytes"] > 0
    assert found["update_bytes"].keys() == set(codecs.names())
    assert found["update_bytes"]["raw-f32"] > found["update_bytes"]["int8"]


def test_check_says_what_freezing_leaves(tmp_path):
    path = saved(tmp_path / "net.onnx")
    found = json.loads(run("check", path, "--freeze", "ba*", "--json").stdout)
    assert (found["trained"], found["frozen"]) == (24, 32)
    assert not found["tensors"]["base"]["trained"]
    text = run("check", path, "--freeze", "ba*").stdout
    assert "net.onnx can be trained" in text
    assert "56: 24 trained, 32 frozen" in text


def test_check_names_what_is_in_the_way_and_fails(tmp_path):
    result = run("check", saved(tmp_path / "net.onnx", middle="Sign"))
    assert result.exit_code == 1
    assert "net.onnx cannot be trained: " in result.stdout
    assert "base" in result.stdout


def test_check_refuses_a_hostile_file_in_one_line(tmp_path):
    result = run("check", saved(tmp_path / "net.onnx", location="../../etc/passwd"))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: model: net.onnx: external_data: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "nowhere.onnx"),
        ("check", __file__),
        ("bench", "mlp", "--shape", "0x2"),
        ("export", "mlp"),
        ("bench", "mlp", "--optimizer", "lbfgs"),
    ],
)
def test_a_command_line_without_sense_is_a_usage_error(arguments):
    assert run(*arguments).exit_code == 2


def test_a_model_that_is_none_is_told():
    result = run("bench", "vgg")
    assert result.exit_code == 1
    assert "'vgg' is no .onnx file" in result.stderr


def test_bench_times_each_backend_and_their_ratio():
    result = run("bench", "softmax", "--shape", "4", "--classes", "3", "--steps", 5, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["backends"].keys() == {"onnx", "torch"}
    times = {name: one["median_ms"] for name, one in found["backends"].items()}
    assert all(time > 0 for time in times.values())
    assert found["onnx_over_torch"] == pytest.approx(times["onnx"] / times["torch"])


def test_bench_of_a_file_needs_no_torch(tmp_path):
    result = run("bench", saved(tmp_path / "net.onnx"), "--steps", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "net.onnx, batch 32, threads 1"
    assert [line.split()[0] for line in lines[3:]] == ["onnx"]


def test_export_writes_a_model_for_an_older_runtime(tmp_path):
    target = tmp_path / "softmax.onnx"
    result = run("export", "softmax", "--shape", "2x3", "--classes", 5, "--to", target,
                 "--runtime", "1.10")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert onnx.load(target).opset_import[0].version == 15
    (logits,) = onnxruntime.InferenceSession(target).run(
        None, {"input": np.zeros((4, 2, 3), np.float32)}
    )
    assert logits.shape == (4, 5)


def test_export_of_a_file_gives_it_the_usual_names(tmp_path):
    target = tmp_path / "out.onnx"
    result = run("export", saved(tmp_path / "net.onnx"), "--to", target, "--json")
    assert json.loads(result.stdout) == {"file": str(target), "bytes": target.stat().st_size}
    assert onnx.load(target).graph.output[0].name == "logits"
