"""Top-K's selection is exact on long vectors too, and its sender must keep what it drops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updates.codecs import create
from updates.codecs.selection import largest_positions

LONG = 200_000


def expected(vector, count):
    """The first of equals: a stable sort of the magnitudes, falling."""
    return np.sort(np.argsort(-np.abs(vector), kind="stable")[:count])


def inputs():
    rng = np.random.default_rng(4)
    normal = rng.standard_normal(LONG, dtype=np.float32)
    return {
        "normal": normal,
        "heavy tails": rng.standard_t(2, LONG).astype(np.float32),
        "few magnitudes": np.round(normal * 2),
        "all alike": np.ones(LONG, dtype=np.float32),
        "all zero": np.zeros(LONG, dtype=np.float32),
        "mostly zero": np.where(rng.random(LONG) < 0.001, normal, np.float32(0)),
        "sorted": np.sort(normal),
        "large ones where no sample is taken": np.where(
            np.arange(LONG) % 12, normal, np.float32(0)
        ),
        "large ones only where the sample is": np.where(
            np.arange(LONG) % 12, np.float32(0.1), normal
        ),
    }


@pytest.mark.parametrize("name", list(inputs()))
@pytest.mark.parametrize("count", [1, 20, 2000, 60_000, LONG - 1, LONG])
def test_the_largest_of_a_long_vector_are_found_exactly(name, count):
    vector = inputs()[name]
    np.testing.assert_array_equal(largest_positions(vector, count), expected(vector, count))


@given(st.integers(0, 2**32 - 1), st.integers(1, 70_000), st.floats(0, 1), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_the_largest_of_vectors_with_many_ties_are_found_exactly(seed, size, share, decimals):
    vector = np.random.default_rng(seed).standard_normal(size).round(decimals).astype(np.float32)
    count = max(1, int(share * size))
    np.testing.assert_array_equal(largest_positions(vector, count), expected(vector, count))


def test_what_topk_drops_must_be_kept_by_the_sender():
    assert create("topk").feedback == "required"
    assert create("topk").is_biased
    assert create("topk", {"fraction": 1.0}).feedback == "required"
