"""Distributed noise shaping: weighted sums of a block's errors are small, and nothing overflows."""

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_bodies import BAD_SCALES, body_of, check_body, round_trip, with_scale
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"w": (40 * 64,)})
RNG = np.random.default_rng(0)
VECTORS = {
    "gauss": RNG.standard_normal(LAYOUT.size, dtype=np.float32),
    "at the maximum": RNG.choice(np.array([-1, 1], dtype=np.float32), LAYOUT.size),
    "constant": np.full(LAYOUT.size, 1.0, dtype=np.float32),
}
every_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
every_width = pytest.mark.parametrize("bits", range(1, 9))


def scaled_errors(vector, bits, beta, block):
    """Return the errors in steps, one row a block of the memory, buckets of 64."""
    params = {"bits": bits, "beta": beta, "block": block, "bucket": 64}
    decoded = round_trip(create("betaq", params), vector, LAYOUT).reshape(-1, 64)
    rows = vector.reshape(-1, 64).astype(np.float64)
    steps = np.abs(rows).max(axis=1, keepdims=True) / (2 ** (bits - 1) - beta / 2)
    return ((rows - decoded) / steps).reshape(-1, block)


@every_width
@pytest.mark.parametrize("beta", [1, 1.1, 1.5, 1.9])
@every_vector
def test_the_weighted_sum_of_a_blocks_errors_is_at_most_half_a_step_at_its_end(vector, beta, bits):
    errors = scaled_errors(vector, bits, beta, 16)
    weights = float(beta) ** -np.arange(1, 17)
    assert np.abs(errors @ weights).max() <= 0.5 * float(beta) ** -16 + 2e-3
    assert np.abs(errors).max() <= (1 + beta) / 2 + 1e-3


def test_the_memory_begins_anew_with_each_block_and_bucket():
    vector = VECTORS["gauss"]
    whole = round_trip(create("betaq", {"bucket": 64, "block": 15}), vector, LAYOUT)
    for bucket in range(3):
        values = slice(64 * bucket, 64 * (bucket + 1))
        alone = round_trip(
            create("betaq", {"bucket": 64, "block": 15}), vector[values], Layout.of({"w": (64,)})
        )
        np.testing.assert_array_equal(whole[values], alone)
    nearest = round_trip(create("betaq", {"bucket": 64, "block": 1}), vector, LAYOUT)
    np.testing.assert_array_equal(whole.reshape(-1, 64)[:, ::15], nearest.reshape(-1, 64)[:, ::15])
    assert (whole != nearest).any()


def test_decoded_values_are_the_levels_scaled_as_in_the_source():
    vector = VECTORS["gauss"][:64]
    decoded = round_trip(
        create("betaq", {"bits": 3, "bucket": 64}), vector, Layout.of({"w": (64,)})
    )
    largest, half = float(np.abs(vector).max()), 4
    delta = 2 * largest / (2 * half - 1)
    levels = decoded * (2 * half - 1.1) / (2 * half - 1) / delta
    np.testing.assert_allclose(levels - 0.5, np.round(levels - 0.5), atol=1e-4)


def test_feedback_is_forbidden_where_errors_may_exceed_the_update():
    assert create("betaq").feedback == "forbidden"
    assert create("betaq", {"bits": 8, "bucket": 0}).feedback == "forbidden"
    assert create("betaq", {"bits": 8}).feedback == "allowed"


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("betaq")
    body = with_scale(body_of(codec, VECTORS["gauss"], LAYOUT), 1, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, LAYOUT)


def test_lengths_are_checked():
    body = body_of(create("betaq"), VECTORS["gauss"], LAYOUT)
    with pytest.raises(PayloadError, match="body length"):
        check_body(create("betaq"), body[:-1], LAYOUT)


@pytest.mark.parametrize(
    "params",
    [
        {"bits": 0},
        {"bucket": 100},
        {"beta": 0.9},
        {"beta": 2},
        {"beta": float("nan")},
        {"beta": "1.1"},
        {"block": 0},
        {"block": 1.5},
    ],
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(CodecParameterError, match="must be"):
        create("betaq", params)
