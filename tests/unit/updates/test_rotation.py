"""The seeded rotation: a Hadamard transform, its blocks, and its way back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.codecs.rotation import (
    FULL_BLOCK,
    block_sizes,
    hadamard,
    rotate,
    rotate_back,
    round_seeds,
)


def matrix(size):
    result = np.ones((1, 1))
    while len(result) < size:
        result = np.block([[result, result], [result, -result]])
    return result


@pytest.mark.parametrize("size", [1, 2, 4, 64, 128, 1024])
def test_the_transform_is_that_of_the_hadamard_matrix(size):
    values = np.random.default_rng(size).integers(-50, 50, size).astype(np.float32)
    before = values.copy()
    np.testing.assert_array_equal(hadamard(values), matrix(size) @ values)
    np.testing.assert_array_equal(values, before)


@given(st.integers(1, 5 * FULL_BLOCK))
def test_blocks_cover_a_vector_with_little_padding(count):
    sizes = block_sizes(count)
    assert all(64 <= size <= FULL_BLOCK and size & (size - 1) == 0 for size in sizes)
    assert sum(sizes[:-1]) < count <= sum(sizes)
    assert sum(sizes) - count <= max(127, (count % FULL_BLOCK) / 7)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("count", [1, 50, 64, 1000, FULL_BLOCK])
def test_what_is_rotated_turns_back(rounds, count):
    values = np.random.default_rng(1).integers(-8, 8, count).astype(np.float32)
    seeds = round_seeds(77, rounds)
    (size, *_) = block_sizes(count)
    rotated = rotate(values[:size], seeds, 64, size)
    back = rotate_back(rotated, seeds, 64) / np.float32(size) ** rounds
    np.testing.assert_allclose(back[: min(count, size)], values[:size], atol=1e-4)
    assert np.abs(back[count:]).max(initial=0) < 1e-4


def test_another_seed_another_place_and_another_round_give_other_signs():
    values = np.random.default_rng(1).standard_normal(64, dtype=np.float32)
    turned = [
        rotate(values, seeds, start, 64).tobytes()
        for seeds, start in (([1], 0), ([2], 0), ([1], 64), (round_seeds(1, 1), 0))
    ]
    assert len(set(turned)) == 4
    first, second = round_seeds(1, 2)
    assert first != second


def test_two_rounds_make_a_single_large_value_look_gaussian():
    spike = np.zeros(1024, dtype=np.float32)
    spike[3] = 1
    one = rotate(spike, round_seeds(5, 1), 0, 1024)
    assert set(np.abs(one)) == {1.0}
    two = rotate(spike, round_seeds(5, 2), 0, 1024) / 32
    assert 2.5 < (two.astype(np.float64) ** 4).mean() < 3.5
