"""StocQ: levels without zero, right on the mean."""

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_bodies import (
    BAD_SCALES,
    body_of,
    check_body,
    decoded_body,
    draws_of,
    with_scale,
)
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (20,), "b": (4,)})
VECTOR = np.random.default_rng(0).standard_t(3, 24).astype(np.float32)
every_width = pytest.mark.parametrize("bits", range(1, 9))


def steps_of(bits):
    peaks = np.abs(VECTOR.reshape(3, 8)).max(axis=1).astype(np.float64)
    return np.repeat(2 * peaks / (2**bits - 1), 8)


@every_width
def test_levels_are_odd_multiples_of_half_a_step_up_to_the_largest_of_the_bucket(bits):
    draws = draws_of(create("stocq", {"bits": bits, "bucket": 8}), VECTOR, LAYOUT, 20)
    halves = 2 * draws / steps_of(bits)
    np.testing.assert_allclose(halves, 2 * np.round((halves - 1) / 2) + 1, rtol=1e-5)
    assert np.abs(halves).max() == pytest.approx(2**bits - 1, rel=1e-5)


@every_width
def test_error_is_below_a_step_and_variance_below_a_quarter_of_its_square(bits):
    draws = draws_of(create("stocq", {"bits": bits, "bucket": 8}), VECTOR, LAYOUT, 800)
    step = steps_of(bits)
    assert (np.abs(draws - VECTOR) < step * (1 + 1e-4)).all()
    assert (np.abs(draws.mean(axis=0) - VECTOR) <= 5 * step / 2 / np.sqrt(800)).all()
    assert (draws.var(axis=0) <= step**2 / 4 * 1.1).all()


def test_with_one_bit_and_one_scale_each_value_becomes_plus_or_minus_the_largest():
    draws = draws_of(create("stocq", {"bits": 1, "bucket": 0}), VECTOR, LAYOUT, 3)
    np.testing.assert_allclose(np.abs(draws), np.abs(VECTOR).max(), rtol=1e-6)


def test_wire_layout_is_scales_then_codes_of_odd_multiples():
    codec = create("stocq", {"bits": 4, "bucket": 8})
    body = body_of(codec, VECTOR, LAYOUT)
    assert len(body) == 3 * 4 + 12
    spoilt = with_scale(body, 0, 1.0)
    spoilt[12:16] = bytes([0x10, 0x87, 0xFE, 0x77])
    decoded = decoded_body(codec, spoilt, LAYOUT)[:8]
    assert decoded.tolist() == [-15, -13, -1, 1, 13, 15, -1, -1]


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("stocq")
    body = with_scale(body_of(codec, VECTOR, LAYOUT), 0, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, LAYOUT)


def test_a_body_of_another_bucket_size_is_refused():
    body = body_of(create("stocq", {"bucket": 8}), VECTOR, LAYOUT)
    with pytest.raises(PayloadError):
        check_body(create("stocq", {"bucket": 16}), body, LAYOUT)


@pytest.mark.parametrize("params", [{"bits": 0}, {"bits": 9}, {"bucket": 500}, {"bucket": 4}])
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(CodecParameterError, match="must be"):
        create("stocq", params)
