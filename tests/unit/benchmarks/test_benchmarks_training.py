import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.training import calls
from benchmarks.training.pages import markdown_table, put_section
from central.modeling.training_graph import StepSpec, build_training_graph
from tests.runtimes.environments import find_python

BATCH, FEATURES, CLASSES = 6, 5, 3


@pytest.fixture(scope="module")
def step():
    """The training graph of softmax regression."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((FEATURES, CLASSES), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["input", "weight", "bias"], ["logits"])],
        "softmax",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.ones(CLASSES, np.float32), "bias"),
        ],
    )
    forward = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return build_training_graph(forward, StepSpec())


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def feed_of(step):
    rng = np.random.default_rng(2)
    return {
        "parameters": step.first,
        "input": rng.standard_normal((BATCH, FEATURES), np.float32),
        "labels": rng.integers(0, CLASSES, BATCH),
        "mask": np.ones(BATCH, np.float32),
        "learning_rate": np.array(0.1, np.float32),
    }


def test_one_scan_and_bound_buffers_come_to_the_bits_of_single_calls(step):
    feed = feed_of(step)
    single = calls.one_by_one(session(step.model), feed)()
    assert np.abs(single - step.first).max() > 1e-3
    bound = calls.bound(session(step.model), feed)
    assert np.array_equal(bound(), single)
    assert np.array_equal(bound(), single), "the second time begins anew"
    scan = session(calls.several_steps(step.model))
    assert np.array_equal(calls.scanned(scan, feed)(), single)


def test_ways_that_disagree_are_not_compared():
    plays = {"one": lambda: np.zeros(2), "other": lambda: np.ones(2)}
    with pytest.raises(ValueError, match="other: other parameters"):
        calls.compared(plays, 0.1)


def test_a_table_goes_into_its_place_of_a_page_again_and_again(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: x -->\nold\n<!-- end: x -->\nafter\n")
    table = markdown_table(("a", "b"), [("1", "2")])
    for _ in range(2):
        put_section(page, "x", table)
    assert page.read_text() == (
        "before\n<!-- measured: x -->\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end: x -->\nafter\n"
    )


def test_a_page_without_the_place_is_refused_and_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="measured: x"):
        put_section(page, "x", "text")
    assert page.read_text() == "nothing"


def test_every_place_that_the_benchmarks_fill_is_on_the_page():
    page = (Path(__file__).parents[3] / "docs" / "onnx-training.md").read_text()
    for name in ("steps", "calls", "footprint", "fedavg"):
        assert page.count(f"<!-- measured: {name} -->") == 1
        assert page.count(f"<!-- end: {name} -->") == 1


def test_a_python_is_found_by_its_version_and_never_another():
    here = "{}.{}".format(*sys.version_info[:2])
    assert find_python(("9.9",)) is None
    assert find_python(("9.9", here)) is not None
