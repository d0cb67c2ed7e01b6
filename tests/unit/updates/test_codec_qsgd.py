"""QSGD: the variance bounds of the paper, and what it refuses."""

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_bodies import (
    BAD_SCALES,
    body_of,
    check_body,
    draws_of,
    round_trip,
    with_scale,
)
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (50,), "b": (14,)})
VECTOR = np.random.default_rng(0).standard_t(3, 64).astype(np.float32)
every_width = pytest.mark.parametrize("bits", range(2, 9))


@every_width
def test_the_variance_with_the_2_norm_keeps_the_bound_of_the_paper(bits):
    draws = draws_of(create("qsgd", {"bits": bits, "bucket": 0}), VECTOR, LAYOUT, 1000)
    levels = 2 ** (bits - 1) - 1
    energy = np.square(VECTOR.astype(np.float64)).sum()
    variance = np.square(draws - VECTOR).sum(axis=1).mean()
    assert variance <= min(64 / levels**2, 8 / levels) * energy * 1.05


@every_width
def test_the_variance_with_the_maximum_is_a_quarter_of_a_squared_step(bits):
    params = {"bits": bits, "bucket": 16, "norm": "max"}
    draws = draws_of(create("qsgd", params), VECTOR, LAYOUT, 800)
    peaks = np.abs(VECTOR.reshape(4, 16)).max(axis=1).astype(np.float64)
    step = np.repeat(peaks / (2 ** (bits - 1) - 1), 16)
    assert (draws.var(axis=0) <= step**2 / 4 * 1.1).all()


def test_each_value_is_a_whole_number_of_shares_of_its_norm():
    decoded = round_trip(create("qsgd", {"bits": 4, "bucket": 16}), VECTOR, LAYOUT)
    norms = np.linalg.norm(VECTOR.reshape(4, 16).astype(np.float64), axis=1)
    shares = decoded * 7 / np.repeat(norms, 16)
    np.testing.assert_allclose(shares, np.round(shares), atol=1e-5)
    assert (decoded * VECTOR >= 0).all()


def test_one_value_alone_is_its_norm():
    vector = np.zeros(64, dtype=np.float32)
    vector[9] = -3.7
    for norm in ("l2", "max"):
        decoded = round_trip(create("qsgd", {"norm": norm}), vector, LAYOUT)
        np.testing.assert_allclose(decoded, vector, rtol=3e-7)


def test_a_norm_beyond_float32_leaves_the_largest_values_finite_and_near():
    vector = np.full(64, np.finfo(np.float32).max, dtype=np.float32)
    draws = draws_of(create("qsgd", {"bits": 8}), vector, LAYOUT, 50)
    np.testing.assert_allclose(draws, np.tile(vector, (50, 1)), rtol=1e-6)


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("qsgd")
    body = with_scale(body_of(codec, VECTOR, LAYOUT), 0, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, LAYOUT)


def test_a_level_above_the_norm_is_refused():
    codec = create("qsgd", {"bits": 4})
    body = body_of(codec, VECTOR, LAYOUT)
    body[-1] |= 0xF0
    with pytest.raises(PayloadError, match=r"code 15 in 0..63, limit 14"):
        check_body(codec, body, LAYOUT)
    with pytest.raises(PayloadError, match="body length"):
        check_body(codec, body[:-1], LAYOUT)


@pytest.mark.parametrize(
    "params", [{"bits": 1}, {"bits": 9}, {"bucket": 3}, {"norm": "l1"}, {"norm": 2}]
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(CodecParameterError, match="must be"):
        create("qsgd", params)
