"""Rounding to codes: every share of the noise counts, and nothing leaves the outermost level."""

import numpy as np
import pytest

from updates.codecs.rounding import nearest, stochastic, uniforms

ALL_NOISE = np.arange(65536, dtype="<u2").view("<u8").astype(np.uint64)


class FixedNoise:
    """Stands in for a generator: noise that the test chose."""

    def __init__(self, words):
        self.words = words

    def integers(self, low, high, *, size, dtype):
        assert (low, high, dtype) == (0, 2**64, np.uint64)
        return np.resize(self.words, size)


def test_uniforms_are_four_lanes_of_each_word():
    lanes = uniforms(FixedNoise(ALL_NOISE), 65536)
    np.testing.assert_array_equal(lanes, np.arange(65536) / 65536)
    assert uniforms(FixedNoise(ALL_NOISE), 7).tolist() == [index / 65536 for index in range(7)]


def test_uniforms_are_spread_evenly_and_independent_of_each_other():
    drawn = uniforms(np.random.default_rng(1), 400_000).astype(np.float64)
    counts = np.histogram(drawn, bins=64, range=(0, 1))[0]
    expected = 400_000 / 64
    assert np.square(counts - expected).sum() / expected < 63 + 5 * np.sqrt(126)
    for lag in (1, 2, 3, 4):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 5 / np.sqrt(400_000)


@pytest.mark.parametrize("zero", [0, 0.5, 1, 7, 7.5, 127, 127.5])
@pytest.mark.parametrize("share", [0.0, 1e-4, 0.25, 0.3, 0.49999, 0.5, 0.77, 0.9999])
def test_the_mean_over_all_noise_is_the_value(zero, share):
    steps = np.full(65536, share, dtype=np.float32)
    codes = stochastic(steps.copy(), zero, FixedNoise(ALL_NOISE))
    assert codes.mean() - zero == pytest.approx(float(steps[0]), abs=2**-16)


@pytest.mark.parametrize("zero", [0.5, 1, 1.5, 3, 7, 31.5, 63, 127, 127.5])
def test_the_outermost_levels_are_kept_for_all_noise(zero):
    for sign in (-1, 1):
        steps = np.full(65536, sign * zero, dtype=np.float32)
        codes = stochastic(steps.copy(), zero, FixedNoise(ALL_NOISE))
        assert set(codes.tolist()) == {round(zero + sign * zero)}
        assert set(nearest(steps, zero).tolist()) == {round(zero + sign * zero)}


@pytest.mark.parametrize("zero", [1, 7.5, 127])
def test_the_nearest_code_is_at_most_half_of_a_step_away(zero):
    steps = np.linspace(-zero, zero, 10_001, dtype=np.float32)
    codes = nearest(steps.copy(), zero)
    assert np.abs(codes.astype(np.float64) - zero - steps).max() <= 0.5 + 2**-16
