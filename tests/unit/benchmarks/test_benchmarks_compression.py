"""The benchmarks of compression: gradients, counting, and what LAQ saves on the digits."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.compression import descent, problems
from benchmarks.compression.fleet import Fleet
from benchmarks.compression.methods import GradientDescent, methods
from benchmarks.compression.results import Results, Run
from benchmarks.compression.senders import Energies, Feeding, keeps_an_error, sender
from benchmarks.compression.settings import Coding, Setting
from benchmarks.training.fedavg import Start, plan_for, write_graph
from benchmarks.training.models import TIMED
from learning.data.dataset import Dataset
from schemas.tasks import Training
from updates.codecs import create
from updates.layout import Layout

LAYOUT = Layout.of({"a": (40,)})


def part(rng, examples, features):
    x = rng.standard_normal((examples, 1, 1, features)).astype(np.float32)
    return problems.Part.of(Dataset(x, rng.integers(0, 10, examples), 10, "random"))


@pytest.fixture(params=[problems.SoftmaxRegression, problems.Network], ids=["softmax", "network"])
def problem(request):
    rng = np.random.default_rng(3)
    return request.param([part(rng, 30, 7), part(rng, 20, 7)], part(rng, 10, 7))


def test_gradients_are_those_of_finite_differences(problem):
    theta = problem.start(1)
    gradient = problem.evaluate(theta[np.newaxis])[1][0].mean(0)
    slope = float(np.linalg.norm(gradient))
    move = np.float32(2**-7 / slope) * gradient
    losses, _ = problem.evaluate(np.stack([theta - move, theta + move]))
    assert (losses[1] - losses[0]) / 2**-6 == pytest.approx(slope, rel=2e-3)


def test_methods_side_by_side_do_not_touch_each_other(problem):
    thetas = np.stack([problem.start(1), problem.start(2)])
    losses, gradients = problem.evaluate(thetas)
    for at, theta in enumerate(thetas):
        loss, gradient = problem.evaluate(theta[np.newaxis])
        assert losses[at] == pytest.approx(loss[0], rel=1e-6)
        np.testing.assert_allclose(gradients[at], gradient[0], atol=1e-6)


def test_the_paper_s_problems_have_the_paper_s_sizes():
    assert problems.digits().layout.size == 650
    parts = [problems.Part(np.ones((1, 785), np.float32), np.zeros(1, np.int64))]
    assert problems.SoftmaxRegression(parts, parts[0]).layout.size == 7850
    assert problems.Network(parts, parts[0]).layout.size == 159_010


def test_gradient_descent_counts_every_gradient_in_full():
    method = GradientDescent(LAYOUT)
    method.aggregate(np.ones((10, 40), np.float32))
    assert (method.uploads, method.value_bits, method.payload_bytes) == (10, 12_800, 10 * 172)


def test_a_gradient_that_stays_is_sent_once_by_the_lazy_methods():
    gradients = np.random.default_rng(5).standard_normal((10, 40)).astype(np.float32)
    for name in ("LAG", "LAQ-4"):
        method = methods(4)[name](LAYOUT)
        for _ in range(20):
            total = method.aggregate(gradients)
        assert method.uploads == 10, name
        np.testing.assert_allclose(total, gradients.sum(0), atol=3.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_laq_on_the_digits_sends_300_times_fewer_bits_than_gradients_and_40_times_than_quantized():
    problem, makers = problems.digits(), dict(methods(4))
    del makers["LAG"]
    goal = descent.least_loss(problem) + 1e-6

    def go_on(number, traces):
        return any(trace.losses[-1] > goal for trace in traces.values())

    traces = descent.run(problem, makers, 4000, go_on)
    costs = {name: descent.cost(problem, trace, goal) for name, trace in traces.items()}
    assert all(cost.reached for cost in costs.values())
    assert costs["GD"].value_bits >= 300 * costs["LAQ-4"].value_bits
    assert costs["QGD-4"].value_bits >= 40 * costs["LAQ-4"].value_bits
    assert len({cost.accuracy for cost in costs.values()}) == 1
    assert costs["GD"].accuracy > 0.93


def run(accuracy, up, key="k"):
    rounds = [5 * (at + 1) for at in range(len(accuracy))]
    return Run(key, "some codec", 1, rounds, accuracy, up, [10 * one for one in up], 1.0)


def test_bytes_are_counted_until_the_target_is_first_reached():
    raw, sparse = run([90, 95, 96], [1000, 2000, 3000]), run([80, 94, 96], [1, 2, 4])
    assert sparse.fewer_bytes(raw, 95, both_ways=False) == 2000 / 4
    assert sparse.fewer_bytes(raw, 95, both_ways=True) == 22_000 / 44
    assert sparse.fewer_bytes(raw, 90, both_ways=False) == 1000 / 2
    assert sparse.fewer_bytes(raw, 97, both_ways=False) is None


def test_a_finished_run_is_found_again_and_serves_a_shorter_one(tmp_path):
    file = tmp_path / "runs.jsonl"
    Results(file).add(run([90, 95, 96], [1, 2, 3]))
    results = Results(file)
    assert results.get("k", 15).accuracy == [90, 95, 96]
    assert results.get("k", 10).up_bytes == [1, 2]
    assert results.get("k", 20) is None
    assert results.get("other", 5) is None


def test_a_run_that_diverged_is_not_played_again(tmp_path):
    file = tmp_path / "runs.jsonl"
    Results(file).add(replace(run([90, 10], [1, 2]), diverged="the loss is nan"))
    assert Results(file).get("k", 200).diverged == "the loss is nan"


def test_the_same_conditions_have_one_key_and_others_another():
    settings = [
        Setting(Coding("topk")),
        Setting(Coding("topk", {"fraction": 0.02})),
        Setting(Coding("topk"), down=Coding("topk")),
        Setting(Coding("topk"), steps=5),
    ]
    assert len({one.key(1) for one in settings}) == len(settings)
    assert settings[0].key(1) != settings[0].key(2)
    assert settings[0].key(1) == Setting(Coding("topk"), rounds=7).key(1)


def test_what_a_codec_leaves_out_is_sent_later():
    end = Feeding(create("topk", {"fraction": 0.1}), LAYOUT)
    update = np.random.default_rng(6).standard_normal(40).astype(np.float32)
    total, rng = np.zeros(40), np.random.default_rng(7)
    for _ in range(100):
        total += end.codec.decode(end.send(update, rng).payload, LAYOUT)
    np.testing.assert_allclose(total / 100, update, atol=0.35)


def test_a_codec_without_bias_keeps_no_error():
    assert not keeps_an_error(create("int8"))
    assert not keeps_an_error(create("raw-f32"))
    assert keeps_an_error(create("topk"))


def test_a_sender_with_a_reference_skips_what_has_hardly_changed_and_central_goes_on_with_it():
    energies, rng = Energies(2), np.random.default_rng(7)
    end = sender(create("laq", {"bits": 8}), LAYOUT, energies)
    update = np.random.default_rng(6).standard_normal(40).astype(np.float32)
    sizes = []
    for _ in range(4):
        sent = end.send(update, rng)
        sizes.append(sent.wire_bytes)
        np.testing.assert_allclose(sent.codec.decode(sent.payload, LAYOUT), update, atol=0.02)
        energies.note(update)
    assert sizes == [12 + 5 + 40, 13, 13, 13]


def test_a_fleet_counts_payloads_up_and_one_change_for_each_device_down(tmp_path):
    rng = np.random.default_rng(8)
    x = rng.standard_normal((64, 1, 28, 28)).astype(np.float32)
    whole = Dataset(x, rng.integers(0, 10, 64), 10, "random")
    training = Training(steps=2, batch_size=8, learning_rate=0.05)
    graph = tmp_path / "graph"
    layout = write_graph(graph, TIMED["lenet5"], training)
    start = Start.of("lenet5", whole, 1, 2)
    plan = plan_for(start, whole, training)
    half = Coding("topk", {"fraction": 0.5})
    plain, coded = (
        Fleet(start, Setting(Coding("raw-f32"), down=down), plan, graph) for down in (None, half)
    )
    for fleet in (plain, coded):
        fleet.round(1)
    assert plain.up_bytes == coded.up_bytes == 2 * (4 * layout.size + 12)
    assert plain.down_bytes == 2 * 4 * layout.size
    assert 0 < coded.down_bytes < plain.down_bytes * 0.7
    moved, brought = plain.vector - start.vector, coded.vector - start.vector
    left = moved - brought
    assert 0 < np.abs(left).max() < np.abs(moved).max()
    assert np.abs(coded.down.error - left).max() < 1e-6
