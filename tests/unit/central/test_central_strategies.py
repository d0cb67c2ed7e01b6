import numpy as np
import pytest

from central.adapters.stored_rounds import StoredRounds
from central.core.strategies.base import (
    Contribution,
    Contributions,
    StrategyError,
    run,
)
from central.core.strategies.fedavg import FedAvg
from central.core.strategies.registry import UnknownStrategyError, create
from updates import kernels
from updates.codecs import create as create_codec
from updates.layout import Layout

LAYOUT = Layout.of({"w": (2, 2), "b": (2,)})
CODEC = create_codec("raw-f32")


def contribution(device, values, examples):
    payload = CODEC.encode(np.asarray(values, np.float32), LAYOUT, np.random.default_rng(0))
    return Contribution(device, examples, LAYOUT, CODEC, lambda: payload)


def contributions(*items, model=None):
    model = np.zeros(6, np.float32) if model is None else model
    return Contributions(model, tuple(items))


def test_fedavg_weights_each_update_by_its_examples():
    given = contributions(contribution("a", [1] * 6, 3), contribution("b", [5] * 6, 1))
    _, model = run(FedAvg(), {}, given)
    assert model.tolist() == [2.0] * 6


def test_the_unweighted_mean_counts_every_client_alike():
    given = contributions(contribution("a", [1] * 6, 3), contribution("b", [5] * 6, 1))
    _, model = run(create("mean", {}), {}, given)
    assert model.tolist() == [3.0] * 6


def test_the_mean_update_is_added_to_the_model_which_is_left_as_it_was():
    start = np.arange(6, dtype=np.float32)
    given = contributions(contribution("a", [1] * 6, 1), model=start)
    _, model = run(FedAvg(server_lr=0.5), {}, given)
    assert model.tolist() == (np.arange(6) + 0.5).tolist()
    assert start.tolist() == list(range(6))


def test_sums_run_in_float64_over_more_than_one_block():
    size = (1 << 16) * 2 + 7
    layout = Layout.of({"w": (size,)})
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(3, size)).astype(np.float32)
    items = []
    for index, update in enumerate(updates):
        payload = CODEC.encode(update, layout, rng)
        items.append(Contribution(f"d{index}", index + 1, layout, CODEC, lambda p=payload: p))
    start = rng.normal(size=size).astype(np.float32)
    _, model = run(FedAvg(), {}, Contributions(start, tuple(items)))
    weights = np.array([1, 2, 3], dtype=np.float64) / 6
    expected = (start + (updates.astype(np.float64) * weights[:, None]).sum(axis=0)).astype(
        np.float32
    )
    np.testing.assert_allclose(model, expected, rtol=1e-6, atol=1e-7)
    assert model.dtype == np.float32


def test_a_contribution_decodes_to_its_update():
    assert contribution("a", [1, 2, 3, 4, 5, 6], 1).decode().tolist() == [1, 2, 3, 4, 5, 6]


def test_contributions_are_a_sequence_in_device_order():
    given = contributions(contribution("a", [1] * 6, 1), contribution("b", [1] * 6, 1))
    assert len(given) == 2
    assert [item.device for item in given] == ["a", "b"]
    assert given[1].device == "b"


def test_a_strategy_that_raises_is_told_by_its_error():
    class Broken:
        def init(self, model):
            return {}

        def apply(self, state, contributions):
            message = "no"
            raise KeyError(message)

    with pytest.raises(StrategyError, match="strategy failed: KeyError: 'no'"):
        run(Broken(), {}, contributions(contribution("a", [1] * 6, 1)))


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (np.zeros(5, np.float32), r"strategy gave \(5,\)"),
        ([0.0] * 6, "strategy gave list"),
        (np.array([1, 2, np.nan, 4, 5, np.inf], np.float32), "2 values that are not finite"),
    ],
)
def test_what_is_not_a_model_is_refused(model, text):
    class Odd:
        def init(self, model):
            return {}

        def apply(self, state, contributions):
            return state, model

    with pytest.raises(StrategyError, match=text):
        run(Odd(), {}, contributions(contribution("a", [1] * 6, 1)))


def test_an_unknown_strategy_is_told_with_those_that_exist():
    with pytest.raises(UnknownStrategyError, match="'nope' is not known; there are: fedavg, mean"):
        create("nope", {})


def test_an_unknown_parameter_of_a_strategy_is_named():
    with pytest.raises(ValueError, match="server_rate"):
        create("fedavg", {"server_rate": 1.0})


@pytest.mark.parametrize("rate", [0.0, -1.0, 101.0, float("nan")])
def test_a_server_learning_rate_out_of_its_range_is_refused(rate):
    with pytest.raises(ValueError, match="server_lr"):
        create("fedavg", {"server_lr": rate})


def test_a_users_own_strategy_is_created_by_its_name():
    assert isinstance(create("mine", {}, {"mine": FedAvg}), FedAvg)


def test_fedavg_keeps_no_state():
    assert FedAvg().init(np.zeros(3, np.float32)) == {}


@pytest.mark.parametrize("codec_id", ["int8", "bin", "raw-f32", "topk"])
def test_fedavg_gives_the_same_bits_with_compiled_loops(codec_id):
    codec, rng = create_codec(codec_id), np.random.default_rng(2)
    layout = Layout.of({"w": (100_003,)})
    items = []
    for index in range(11):
        update = rng.standard_normal(layout.size, dtype=np.float32)
        payload = codec.encode(update, layout, rng)
        items.append(
            Contribution(f"d{index:02}", 3 * index + 1, layout, codec, lambda p=payload: p)
        )
    start = rng.standard_normal(layout.size, dtype=np.float32)
    loops = kernels.load()
    assert loops is not None
    _, plain = run(FedAvg(), {}, Contributions(start, tuple(items)))
    _, compiled = run(FedAvg(), {}, Contributions(start, tuple(items), kernels=loops))
    total = np.zeros(layout.size)
    for one in items:
        one.add_into(total, one.num_examples)
    weights = sum(one.num_examples for one in items)
    expected = (start + total * (1 / weights)).astype(np.float32)
    assert plain.tobytes() == compiled.tobytes() == expected.tobytes()


def test_loops_are_compiled_for_large_rounds_alone():
    loads = []
    rounds = StoredRounds(None, None, {}, lambda: loads.append("loaded"))
    assert rounds._kernels(100, 100_000) is None
    assert not loads
    rounds._kernels(10, 10_000_000)
    assert loads == ["loaded"]
    assert StoredRounds(None, None, {})._kernels(10, 10_000_000) is None
