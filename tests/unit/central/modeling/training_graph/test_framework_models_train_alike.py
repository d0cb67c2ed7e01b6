"""Models of Keras and JAX train in our graphs as in their own frameworks."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from central.modeling.sources.onnx_files import forward_graph
from central.modeling.training_graph import StepSpec, build_training_graph

FOLDER = Path(__file__).parents[4] / "golden" / "onnx"
NAMES = ("keras_cnn", "keras_dense", "keras_attention", "jax_mlp", "jax_cnn")


class Golden:
    """One file, its record, and a session that takes steps with it."""

    def __init__(self, name):
        with np.load(FOLDER / f"{name}.npz") as record:
            self.record = dict(record)
        forward = forward_graph(FOLDER / f"{name}.onnx").model
        constants = tuple(
            tensor.name
            for tensor in forward.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
            and f"gradient/{tensor.name}" not in self.record
        )
        self.graph = build_training_graph(forward, StepSpec(frozen=constants))
        self.layout = self.graph.layout
        self.session = onnxruntime.InferenceSession(
            self.graph.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def vector(self, kind):
        """Return what the framework recorded, in the graph's layout."""
        names = [tensor.name for tensor in self.layout.tensors]
        return self.layout.flatten({name: self.record[f"{kind}/{name}"] for name in names})

    def step(self, parameters, number, learning_rate, padding=0):
        """Return the parameters after a step, and its loss; padding rows are huge numbers."""
        x, y = self.record["x"][number], self.record["y"][number]
        feed = {
            "parameters": parameters,
            "input": np.concatenate([x, np.full((padding, *x.shape[1:]), 30, np.float32)]),
            "labels": np.concatenate([y, np.zeros(padding, np.int64)]),
            "mask": np.repeat(np.float32([1, 0]), [len(x), padding]),
            "learning_rate": np.array(learning_rate, np.float32),
        }
        return self.session.run(["new_parameters", "loss"], feed)


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return Golden(request.param)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_every_variable_of_the_framework_is_trained(golden):
    recorded = {key.partition("/")[2] for key in golden.record if key.startswith("gradient/")}
    assert {tensor.name for tensor in golden.layout.tensors} == recorded


def test_the_gradient_is_that_of_the_framework(golden):
    first, expected = golden.graph.first, golden.vector("gradient")
    # A rate of 1 loses the fewest digits where the gradient is taken back from the parameters.
    gradient = first - golden.step(first, 0, learning_rate=1)[0]
    assert relative(gradient, expected) <= 1e-5
    views = golden.layout.unflatten(gradient)
    for name, part in golden.layout.unflatten(expected).items():
        assert np.linalg.norm(views[name] - part) <= 1e-5 * np.linalg.norm(expected), name


def test_every_node_has_a_name_of_its_own_as_onnxruntime_1_19_needs(golden):
    names = [node.name for node in golden.graph.model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("padding", [0, 3])
def test_three_steps_end_at_the_parameters_of_the_framework(golden, padding):
    parameters, losses = golden.graph.first, []
    for number in range(len(golden.record["x"])):
        rate = golden.record["learning_rate"]
        parameters, loss = golden.step(parameters, number, rate, padding)
        losses.append(loss)
    expected = golden.vector("after")
    np.testing.assert_allclose(losses, golden.record["loss"], rtol=1e-5)
    assert relative(parameters, expected) <= 1e-6
    moved = expected - golden.graph.first
    assert np.linalg.norm(parameters - expected) <= 1e-4 * np.linalg.norm(moved)
