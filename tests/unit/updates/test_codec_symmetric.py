"""Symmetric quantization: its bounds, its scales, and the bodies that it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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

LAYOUT = Layout.of({"a": (7,), "b": (2, 3)})
WHOLE = slice(0, 13)
every_width = pytest.mark.parametrize("bits", range(2, 9))
vectors = hnp.arrays(np.float32, 13, elements=st.floats(-(2.0**100), 2.0**100, width=32))


def steps_of(vector, bits, slices):
    steps = np.empty(vector.shape)
    for values in slices:
        largest = float(np.abs(vector[values]).max())
        steps[values] = max(largest / (2 ** (bits - 1) - 1) * (1 + 1e-6), 2e-45)
    return steps


@every_width
@given(vector=vectors)
@settings(max_examples=40)
def test_stochastic_rounding_is_less_than_a_step_off(bits, vector):
    error = np.abs(round_trip(create("symmetric", {"bits": bits}), vector, LAYOUT) - vector)
    assert (error < steps_of(vector, bits, LAYOUT.slices().values()) * (1 + 1e-5)).all()


@every_width
@given(vector=vectors)
@settings(max_examples=40)
def test_nearest_rounding_is_at_most_half_of_a_step_and_the_value_itself_off(bits, vector):
    params = {"bits": bits, "stochastic": False, "scope": "vector"}
    error = np.abs(round_trip(create("symmetric", params), vector, LAYOUT) - vector)
    step = steps_of(vector, bits, [WHOLE])
    assert (error <= step / 2 * (1 + 1e-4)).all()
    assert (error <= np.abs(vector) + step * 2**-16).all()


@every_width
def test_the_variance_is_at_most_a_quarter_of_a_squared_step(bits):
    vector = np.linspace(-1, 1, 13, dtype=np.float32)
    draws = draws_of(create("symmetric", {"bits": bits, "scope": "vector"}), vector, LAYOUT, 800)
    assert (draws.var(axis=0) <= steps_of(vector, bits, [WHOLE]) ** 2 / 4 * 1.1).all()
    np.testing.assert_allclose(draws[:, [0, -1]], np.tile([-1, 1], (800, 1)), rtol=2e-7)


def test_a_tensor_has_a_scale_of_its_own_and_the_vector_only_one():
    vector = np.array([1e-3] * 7 + [50] * 6, dtype=np.float32)
    own = round_trip(create("symmetric", {"stochastic": False}), vector, LAYOUT)
    np.testing.assert_allclose(own, vector, rtol=1e-6)
    one = create("symmetric", {"stochastic": False, "scope": "vector"})
    assert not round_trip(one, vector, LAYOUT)[:7].any()
    assert len(body_of(one, vector, LAYOUT)) == 4 + 13


@every_width
def test_a_value_takes_so_many_bits(bits):
    body = body_of(create("symmetric", {"bits": bits}), range(13), LAYOUT)
    assert len(body) == 2 * 4 + (13 * bits + 7) // 8


@every_width
def test_the_code_above_the_top_level_is_refused(bits):
    codec = create("symmetric", {"bits": bits})
    body = body_of(codec, range(13), LAYOUT)
    body[8] |= (1 << bits) - 1
    with pytest.raises(PayloadError, match=f"code {(1 << bits) - 1} in 0..12"):
        check_body(codec, body, LAYOUT)


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("symmetric")
    body = with_scale(body_of(codec, range(13), LAYOUT), 1, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, LAYOUT)


def test_lengths_and_padding_are_checked():
    codec = create("symmetric", {"bits": 3})
    body = body_of(codec, range(13), LAYOUT)
    with pytest.raises(PayloadError, match="body length in bytes is 12, expected 13"):
        check_body(codec, body[:-1], LAYOUT)
    with pytest.raises(PayloadError, match="26 bytes, 12 to 25 are possible"):
        check_body(codec, body + b"\0", LAYOUT)
    body[-1] |= 0x80
    with pytest.raises(PayloadError, match="not zero"):
        check_body(codec, body, LAYOUT)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"bits": 1}, "bits: 1: must be a whole number, 2 to 8"),
        ({"bits": 9}, "bits: 9"),
        ({"bits": True}, "bits: True"),
        ({"bits": 4.0}, "bits: 4.0"),
        ({"bits": "4"}, "bits: '4'"),
        ({"stochastic": 1}, "stochastic: 1: must be true or false"),
        ({"scope": "layer"}, "scope: 'layer': must be one of tensor, vector"),
        ({"scope": None}, "scope: None"),
    ],
)
def test_parameters_out_of_range_are_refused(params, text):
    with pytest.raises(CodecParameterError, match=text):
        create("symmetric", params)


def test_error_feedback_goes_with_nearest_rounding_only():
    assert create("symmetric", {"bits": 2, "stochastic": False}).feedback == "allowed"
    assert create("symmetric").feedback == "forbidden"
