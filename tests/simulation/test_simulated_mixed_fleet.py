"""Fleets of onnx, torch and both learn alike, seed for seed, without a network."""

import numpy as np
import pytest

from benchmarks.training import fedavg
from benchmarks.training.models import TIMED, Subject
from learning.data.sources import load
from learning.models import registry
from schemas.tasks import Training

TRAINING = Training(epochs=1, batch_size=16, learning_rate=0.05)


@pytest.fixture(scope="module")
def finals(tmp_path_factory):
    """The start of one seed, and each fleet's parameters after four rounds on the digits."""
    whole = load("digits")
    start = fedavg.Start.of("mlp", whole, seed=3)
    shape, classes = whole.x.shape[1:], whole.classes
    subject = Subject("MLP", lambda: registry.build("mlp", {}, shape, classes, 3), shape, classes)
    graph = tmp_path_factory.mktemp("mixed") / "graph"
    assert fedavg.write_graph(graph, subject, TRAINING) == start.layout
    plan = fedavg.plan_for(start, whole, TRAINING)
    found = {}
    for name, kinds in fedavg.FLEETS.items():
        fleet = fedavg.Fleet(start, kinds, plan, graph)
        for number in range(1, 5):
            fleet.round(number)
        found[name] = fleet.vector
    return start, found


@pytest.mark.parametrize("name", ["onnx", "mixed"])
def test_the_global_model_is_that_of_a_fleet_with_torch(finals, name):
    start, found = finals
    moved = np.linalg.norm(found["torch"] - start.vector)
    assert moved > 0.5
    assert np.linalg.norm(found[name] - found["torch"]) <= 1e-3 * moved


def test_all_fleets_are_as_accurate_as_each_other(finals):
    start, found = finals
    held_out = load("digits", train=False)
    accuracies = [fedavg.accuracy(start, vector, held_out) for vector in found.values()]
    assert min(accuracies) >= 85, accuracies
    assert max(accuracies) - min(accuracies) <= fedavg.SPREAD


@pytest.mark.long
def test_fleets_on_mnist_end_within_half_a_point(test_data, tmp_path):
    spec = f"mnist={test_data('mnist')}"
    whole, held_out = load(spec), load(spec, train=False)
    training = Training(steps=40, batch_size=32, learning_rate=0.05)
    start = fedavg.Start.of(fedavg.MODEL, whole, seed=1)
    graph = tmp_path / "graph"
    assert fedavg.write_graph(graph, TIMED[fedavg.MODEL], training) == start.layout
    plan = fedavg.plan_for(start, whole, training)
    final = [
        fedavg.played(start, fedavg.Fleet(start, kinds, plan, graph), 6, held_out)[-1]
        for kinds in fedavg.FLEETS.values()
    ]
    assert min(final) >= 95, final
    assert max(final) - min(final) <= fedavg.SPREAD, final
