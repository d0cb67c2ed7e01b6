"""TernGrad: three values a tensor, five digits a byte."""

import struct

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_bodies import (
    BAD_SCALES,
    body_of,
    check_body,
    decoded_body,
    draws_of,
    round_trip,
    with_scale,
)
from updates.arrays import BLOCK_VALUES
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (9,), "b": (4,)})
VECTOR = np.array([1, -2, 0.5, 0, 4, -4, 3, 1, -1, 0.1, 0.2, -0.1, 0], dtype=np.float32)


def test_values_become_minus_the_largest_of_their_tensor_zero_or_plus_the_largest():
    draws = draws_of(create("terngrad", {"clip": 0}), VECTOR, LAYOUT, 200)
    assert set(np.unique(draws[:, :9])) == {-4, 0, 4}
    np.testing.assert_allclose(np.unique(draws[:, 9:]), [-0.2, 0, 0.2], rtol=1e-6)
    assert (draws * VECTOR >= 0).all()


def test_unclipped_mean_and_variance_are_those_of_the_paper():
    draws = draws_of(create("terngrad", {"clip": 0}), VECTOR, LAYOUT, 1500)
    largest = np.repeat([4, 0.2], (9, 4))
    magnitude = np.abs(VECTOR.astype(np.float64))
    variance = np.maximum(magnitude * (largest - magnitude), 0)
    deviation = np.sqrt(variance / 1500)
    assert (np.abs(draws.mean(axis=0) - VECTOR) <= 5 * deviation + 2e-4 * largest).all()
    assert (np.abs(draws.var(axis=0) - variance) <= 0.1 * largest**2).all()


def test_clipping_takes_the_excess_over_so_many_root_mean_squares():
    layout = Layout.of({"w": (1000,)})
    vector = np.random.default_rng(0).standard_normal(1000, dtype=np.float32)
    vector[5] = 100
    bound = 2.5 * np.sqrt(np.square(vector.astype(np.float64)).mean())
    decoded = round_trip(create("terngrad"), vector, layout)
    assert decoded[5] == pytest.approx(bound, rel=1e-6)
    np.testing.assert_allclose(np.unique(np.abs(decoded)), [0, bound], rtol=1e-6)
    assert create("terngrad").is_biased
    assert not create("terngrad", {"clip": 0}).is_biased


def test_a_tensor_of_one_value_is_not_clipped_away():
    layout = Layout.of({"bias": ()})
    vector = np.array([-0.25], dtype=np.float32)
    assert round_trip(create("terngrad"), vector, layout).tolist() == [-0.25]


def test_five_digits_share_a_byte_from_the_lowest():
    codec = create("terngrad", {"clip": 0})
    vector = [1, -1, 1, 1, -1, 1, -1, -1, -1, 2, -2, 2, 2]
    body = body_of(codec, vector, LAYOUT)
    expected = [2 + 9 * 2 + 27 * 2, 2 + 81 * 2, 0 + 3 * 2 + 9 * 2]
    assert bytes(body) == struct.pack("<2f", 1, 2) + bytes(expected)
    assert decoded_body(codec, body, LAYOUT).tolist() == vector


def test_vectors_longer_than_a_block_keep_their_order():
    layout = Layout.of({"a": (BLOCK_VALUES + 3,), "b": (2 * BLOCK_VALUES,)})
    signs = np.random.default_rng(0).integers(-1, 2, layout.size).astype(np.float32)
    np.testing.assert_array_equal(
        round_trip(create("terngrad", {"clip": 0}), signs, layout), signs
    )


@pytest.mark.parametrize("scale", BAD_SCALES)
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("terngrad")
    body = with_scale(body_of(codec, VECTOR, LAYOUT), 1, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or below 0"):
        check_body(codec, body, LAYOUT)


@pytest.mark.parametrize(
    ("place", "byte", "text"),
    [
        (8, 243, "byte 243 holds no 5 digits"),
        (10, 255, "byte 255"),
        (10, 27, "the 2 digits after the last value are not zero"),
    ],
)
def test_digits_that_could_not_have_been_sent_are_refused(place, byte, text):
    codec = create("terngrad")
    body = body_of(codec, VECTOR, LAYOUT)
    body[place] = byte
    with pytest.raises(PayloadError, match=text):
        check_body(codec, body, LAYOUT)
    with pytest.raises(PayloadError, match="body length"):
        check_body(codec, body[:-1], LAYOUT)


@pytest.mark.parametrize("clip", [-1, 1e7, float("nan"), float("inf"), True, "2.5", None])
def test_a_clip_out_of_range_is_refused(clip):
    with pytest.raises(CodecParameterError, match=r"clip: .* must be a number, 0 to"):
        create("terngrad", {"clip": clip})
