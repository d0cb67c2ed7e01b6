"""A fleet without torch trains a model that came as an .onnx file; what is frozen stays."""

import json
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from learning.data.sources import load
from tests.support.fleet import Shape, running_fleet

DEVICES = ("d1", "d2")
WRITE_S = 60.0
#: Importing torch fails in every program of this fleet.
NO_TORCH = "raise ImportError('torch is not to be imported here')\n"


def saved(path):
    """Write a network for the digits, with names and an opset that an exporter might choose."""
    rng = np.random.default_rng(1)
    tensors = {
        "scale": np.full((1,), 1.5, np.float32),
        "dense/kernel": (rng.standard_normal((64, 32)) / 8).astype(np.float32),
        "dense/bias": np.zeros(32, np.float32),
        "out/kernel": (rng.standard_normal((32, 10)) / 6).astype(np.float32),
        "out/bias": np.zeros(10, np.float32),
    }
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("Mul", ["flat", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "dense/kernel"], ["product"]),
        helper.make_node("Add", ["product", "dense/bias"], ["dense"]),
        helper.make_node("Relu", ["dense"], ["active"]),
        helper.make_node("Gemm", ["active", "out/kernel", "out/bias"], ["probably"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("probably", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    onnx.save_model(model, path)
    return tensors


def test_a_fleet_trains_evaluates_and_writes_a_model_of_an_onnx_file(tmp_path):
    path = tmp_path / "theirs.onnx"
    first = saved(path)
    torchless = tmp_path / "torchless"
    (torchless / "torch").mkdir(parents=True)
    (torchless / "torch" / "__init__.py").write_text(NO_TORCH)
    shape = Shape(
        devices=DEVICES,
        regions=("north",),
        central=("--eval-data", "digits"),
        environment={
            "FEDFLEET_MODELS": json.dumps({"theirs": str(path)}),
            "PYTHONPATH": str(torchless),
        },
        backends=dict.fromkeys(DEVICES, "onnx"),
    )
    with running_fleet(tmp_path / "fleet", shape) as fleet:
        task = fleet.submit(
            {
                "task": "theirs",
                "model": "theirs",
                "data": "digits",
                "rounds": 3,
                "min_clients": 2,
                "training": {"frozen": ["scale"], "epochs": 2},
            }
        )
        status = fleet.complete(task)
        written = fleet.state_dir("central") / "models" / task / "model.onnx"
        end = time.monotonic() + WRITE_S
        while not written.exists():
            assert time.monotonic() < end, fleet.program("central").tail
            time.sleep(0.1)
    held_out = load("digits", train=False)
    session = onnxruntime.InferenceSession(written)
    (logits,) = session.run(None, {"input": held_out.x})
    accuracy = float((logits.argmax(axis=1) == held_out.y).mean())
    assert accuracy > 0.85
    assert status["metrics"]["accuracy"] == pytest.approx(accuracy)
    values = {one.name: numpy_helper.to_array(one) for one in onnx.load(written).graph.initializer}
    np.testing.assert_array_equal(values["scale"], first["scale"])
    assert np.abs(values["out/kernel"] - first["out/kernel"]).max() > 1e-3
