"""Random K: positions from the seed, the right mean or the plain values."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.codecs import create
from updates.codecs.header import HEADER_BYTES, pack
from updates.codecs.public_random import distinct_positions
from updates.codecs.randk import RandKCodec
from updates.errors import CodecParameterError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (40,)})


def payload(codec, vector, seed=0):
    return codec.encode(np.asarray(vector, dtype=np.float32), LAYOUT, np.random.default_rng(seed))


@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.2, 0.7, 1.0]), st.booleans())
def test_the_seeds_positions_hold_the_values_and_others_zero(seed, fraction, unbiased):
    codec = RandKCodec(fraction=fraction, unbiased=unbiased)
    vector = np.random.default_rng(seed).standard_normal(40, dtype=np.float32)
    encoded = payload(codec, vector, seed)
    (public,) = struct.unpack_from("<Q", encoded, HEADER_BYTES)
    count = max(1, round(fraction * 40))
    positions = distinct_positions(public, count, 40)
    expected = np.zeros(40)
    expected[positions] = vector[positions] * (40 / count if unbiased else 1)
    decoded = codec.decode(encoded, LAYOUT)
    assert (np.abs(decoded - expected) <= np.abs(expected) * 2.0**-11 + 1e-9).all()
    assert len(encoded) == HEADER_BYTES + 10 + 2 * count == codec.encoded_size_bound(LAYOUT)


@pytest.mark.parametrize(("unbiased", "expected"), [(True, 9.0), (False, 0.9)])
def test_the_mean_squared_error_is_as_documented(unbiased, expected):
    codec = RandKCodec(fraction=0.1, unbiased=unbiased)
    rng = np.random.default_rng(1)
    vector = rng.standard_normal(40, dtype=np.float32)
    errors = [
        ((codec.decode(codec.encode(vector, LAYOUT, rng), LAYOUT) - vector) ** 2).sum()
        for _ in range(2000)
    ]
    assert np.mean(errors) / (vector**2).sum() == pytest.approx(expected, rel=0.05)


def test_scaled_values_beyond_the_largest_float32_are_clipped():
    largest = np.finfo(np.float32).max
    codec = RandKCodec(fraction=0.1, unbiased=True)
    decoded = codec.decode(payload(codec, [largest, -largest] * 20), LAYOUT)
    assert set(np.abs(decoded)) == {0, largest}


def test_feedback_follows_the_bias():
    scaled = create("randk", {"unbiased": True})
    assert (scaled.feedback, scaled.is_biased) == ("forbidden", False)
    plain = create("randk")
    assert (plain.feedback, plain.is_biased) == ("required", True)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"fraction": 0}, "fraction: 0: must be a number above 0 and up to 1"),
        ({"fraction": 1.5}, "fraction: 1.5"),
        ({"fraction": True}, "fraction: True"),
        ({"unbiased": 1}, "unbiased: 1: must be true or false"),
        ({"unbiased": "yes"}, "unbiased: 'yes'"),
    ],
)
def test_bad_parameters_are_refused(params, text):
    with pytest.raises(CodecParameterError, match=text):
        create("randk", params)


@pytest.mark.parametrize(
    ("offset", "octets", "text"),
    [
        (8, struct.pack("<h", 129), "exponent 129"),
        (8, struct.pack("<h", -149), "exponent -149"),
        (10, b"\x00\x7c", "kept value"),
        (12, b"\x00\xfe", "kept value"),
    ],
)
def test_a_body_that_could_not_have_been_sent_is_refused(offset, octets, text):
    codec = RandKCodec(fraction=0.1)
    body = bytearray(payload(codec, range(40))[HEADER_BYTES:])
    body[offset : offset + len(octets)] = octets
    with pytest.raises(PayloadError, match=text):
        codec.check(pack(codec.number, 40, [body]), LAYOUT)
