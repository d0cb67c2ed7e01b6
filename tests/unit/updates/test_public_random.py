"""The public stream: the published words of SplitMix64, and fair choices made of them."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updates.codecs.public_random import derived, distinct_positions, draw_seed, signs, words

seeds = st.integers(0, 2**64 - 1)


def test_words_are_those_published_for_splitmix64():
    assert words(1234567, 0, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert hex(int(words(0, 0, 1)[0])) == "0xe220a8397b1dcdaf"


def test_a_stream_may_be_read_from_anywhere():
    np.testing.assert_array_equal(words(9, 3, 4), words(9, 0, 7)[3:])
    assert derived(9, 3) == int(words(9, 3, 1)[0])


def test_choices_never_change():
    sign_bits = np.packbits(signs(7, 64, 1000) < 0).tobytes()
    assert hashlib.sha256(sign_bits).hexdigest()[:16] == "b31cc79772493910"
    few = distinct_positions(7, 12, 1000)
    assert few.tolist() == [16, 103, 134, 249, 328, 389, 413, 452, 467, 582, 900, 959]
    most = np.setdiff1d(np.arange(1000), distinct_positions(7, 988, 1000))
    assert most.tolist() == few.tolist()


def test_signs_are_bits_of_words_and_balanced():
    first = words(5, 1, 1)[0]
    expected = [-1.0 if int(first) >> bit & 1 else 1.0 for bit in range(64)]
    assert signs(5, 64, 64).tolist() == expected
    many = signs(5, 0, 100_000)
    assert many.dtype == np.float32
    assert set(many) == {-1.0, 1.0}
    assert abs(many.mean()) < 5 / np.sqrt(many.size)


@given(seeds, st.integers(1, 300), st.floats(0, 1))
@settings(max_examples=200)
def test_positions_are_different_ascending_and_below_the_limit(seed, limit, share):
    count = round(share * limit)
    positions = distinct_positions(seed, count, limit)
    assert positions.size == count
    assert (np.diff(positions) > 0).all()
    assert count == 0 or (positions[0] >= 0 and positions[-1] < limit)


@pytest.mark.parametrize(("count", "limit"), [(1, 7), (3, 10), (5, 10), (8, 10)])
def test_every_position_and_every_pair_is_as_likely(count, limit):
    draws = 4000
    chosen = np.zeros((draws, limit))
    for seed in range(draws):
        chosen[seed, distinct_positions(derived(1, seed), count, limit)] = 1
    share = count / limit
    error = np.abs(chosen.mean(axis=0) - share)
    assert (error <= 5 * np.sqrt(share * (1 - share) / draws)).all()
    together = (chosen.T @ chosen / draws)[~np.eye(limit, dtype=bool)]
    expected = share * (count - 1) / (limit - 1)
    assert (np.abs(together - expected) <= 5 * np.sqrt(expected / draws) + 1e-12).all()


def test_a_seed_is_drawn_from_the_generator_alone():
    draws = [draw_seed(np.random.default_rng(3)) for _ in range(2)]
    assert draws[0] == draws[1]
    assert 0 <= draws[0] < 2**64
    rng = np.random.default_rng(3)
    assert draw_seed(rng) != draw_seed(rng)
