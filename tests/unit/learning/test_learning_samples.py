"""What devices draw from a dataset that all of them have."""

import numpy as np
import pytest

from learning.data.dataset import DataError, Dataset
from learning.data.samples import draw

COUNT = 1000


def everything():
    rng = np.random.default_rng(3)
    x = np.arange(COUNT, dtype=np.float32).reshape(COUNT, 1)
    return Dataset(x, rng.integers(0, 10, COUNT), 10, "numbers")


def numbers(dataset):
    return set(dataset.x[:, 0].astype(int).tolist())


@pytest.mark.parametrize("alpha", [None, 0.1, 0.5, 100.0])
def test_a_draw_has_the_asked_number_of_different_examples_and_is_repeated(alpha):
    first = draw(everything(), 120, alpha, "d-1", 0)
    assert len(first) == len(numbers(first)) == 120
    assert numbers(draw(everything(), 120, alpha, "d-1", 0)) == numbers(first)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_another_device_or_seed_draws_something_else(alpha):
    first = numbers(draw(everything(), 120, alpha, "d-1", 0))
    assert numbers(draw(everything(), 120, alpha, "d-2", 0)) != first
    assert numbers(draw(everything(), 120, alpha, "d-1", 1)) != first


def test_labels_stay_with_their_examples():
    source = everything()
    found = draw(source, 50, 0.5, "d-1", 0)
    places = found.x[:, 0].astype(int)
    np.testing.assert_array_equal(found.y, source.y[places])


def test_a_smaller_alpha_makes_devices_differ_more():
    def largest_share(alpha):
        shares = []
        for number in range(30):
            labels = draw(everything(), 80, alpha, f"d-{number}", 0).y
            shares.append(np.bincount(labels, minlength=10).max() / len(labels))
        return float(np.mean(shares))

    assert largest_share(None) < 0.25
    assert largest_share(100.0) < largest_share(0.5) < largest_share(0.05)


def test_who_asks_for_more_than_there_is_gets_all_of_it():
    assert len(draw(everything(), COUNT + 1, 0.5, "d-1", 0)) == COUNT


def test_numbers_out_of_range_are_refused():
    with pytest.raises(DataError, match="sample: 0"):
        draw(everything(), 0, None, "d-1", 0)
    with pytest.raises(DataError, match="alpha: -1"):
        draw(everything(), 10, -1.0, "d-1", 0)
