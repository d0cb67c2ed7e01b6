"""The statistical law of each codec: right on the mean, or a contraction."""

import numpy as np
import pytest

from tests.support.codec_variants import variants
from updates.layout import Layout

VARIANTS = variants()
LAYOUT = Layout.of({"a": (40,), "b": (4, 6)})
DRAWS = 600
#: A mean of so many draws is further away than this once in 1.7 million values.
STANDARD_ERRORS = 5.0
#: What happens to a value with a probability above 15 in so many draws happens at least once, all
#: but three times in ten million; rarer steps may be missing, from the mean and the spread alike.
UNSEEN = 15 / DRAWS


def heavy_tailed(seed):
    rng = np.random.default_rng(seed)
    return rng.standard_t(3, LAYOUT.size).astype(np.float32)


def of(chosen):
    found = {name: codec for name, codec in VARIANTS.items() if chosen(codec)}
    return pytest.mark.parametrize("codec", list(found.values()), ids=list(found))


@of(lambda codec: not codec.is_biased)
def test_the_mean_of_many_draws_is_the_update(codec):
    vector = heavy_tailed(1)
    rng = np.random.default_rng(2)
    draws = np.array(
        [codec.decode(codec.encode(vector, LAYOUT, rng), LAYOUT) for _ in range(DRAWS)],
        dtype=np.float64,
    )
    error = np.abs(draws.mean(axis=0) - vector)
    standard_error = draws.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    rounding = 2.0**-15 * np.abs(vector).max()
    seldom = np.where(standard_error == 0, UNSEEN * np.ptp(draws, axis=0).max(), 0)
    assert (error <= STANDARD_ERRORS * standard_error + seldom + rounding).all()


@of(lambda codec: codec.is_biased and codec.feedback != "forbidden")
@pytest.mark.parametrize("seed", range(5))
def test_what_a_codec_with_error_feedback_leaves_out_is_less_than_the_update(codec, seed):
    vector = heavy_tailed(seed)
    decoded = codec.decode(codec.encode(vector, LAYOUT, np.random.default_rng(seed)), LAYOUT)
    assert np.linalg.norm(vector - decoded) < np.linalg.norm(vector)


def test_what_is_unbiased_needs_no_error_feedback():
    unbiased = [codec for codec in VARIANTS.values() if not codec.is_biased]
    assert unbiased
    assert all(codec.feedback != "required" for codec in unbiased)
