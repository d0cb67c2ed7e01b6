"""The rule for skipping a round weighs a device as the strategy does."""

from dataclasses import replace

import numpy as np
import pytest
from test_central_memories import LAYOUT, contribution, vector

from central.core import lazy_sum
from central.core.strategies import registry
from schemas.messages import LazyTerms
from updates import lazy


@pytest.mark.parametrize(("strategy", "clients"), [("fedavg", None), ("mean", 2)])
def test_a_lazy_task_tells_by_what_its_devices_are_weighed(rig, strategy, clients):
    rig.fleet("a", "b")
    rig.submit(task="t", codec="laq", strategy=strategy, rounds=3, cohort=2)
    rig.work()
    job = rig.newest()
    assert rig.update("a", job, 1.0, examples=10).status == "accepted"
    assert rig.update("b", job, 3.0, examples=30).status == "accepted"
    rig.work()
    told = rig.newest().lazy
    assert (told.examples, told.clients) == (40, clients)
    mean = 2.5 if clients is None else 2.0
    expected = lazy.threshold([LAYOUT.size * mean**2], 2)
    np.testing.assert_allclose(told.threshold, expected, rtol=1e-5)


def test_the_weight_of_a_device_is_its_share_of_what_counts():
    by_examples = LazyTerms(threshold=1.0, examples=40)
    assert [by_examples.weight(n) for n in (10, 40, 80)] == [0.25, 1.0, 1.0]
    alike = LazyTerms(threshold=1.0, examples=40, clients=4)
    assert [alike.weight(n) for n in (1, 40)] == [0.25, 0.25]


def test_the_last_aggregates_norm_is_that_of_the_strategys_own_mean():
    many = replace(contribution("b", vector(2)), num_examples=95)
    contributions = lazy_sum.Contributions(
        np.zeros(LAYOUT.size, np.float32), (contribution("a", vector(1)), many)
    )
    first, second = (one.decode().astype(np.float64) for one in contributions)
    for name, share in (("fedavg", 0.05), ("mean", 0.5)):
        weighted = registry.weighs_examples(name)
        strategy = registry.create(name, {})
        _, _, terms = lazy_sum.run_lazily(strategy, {}, contributions, weighted=weighted)
        norm = np.square(share * first + (1 - share) * second).sum()
        np.testing.assert_allclose(terms.threshold, 0.8 * norm / 4, rtol=1e-5)
