"""Federated dropout: whole units are there or not, of every tensor its share."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.codecs import create
from updates.codecs.dropout import DropoutCodec
from updates.codecs.header import HEADER_BYTES, pack
from updates.errors import CodecParameterError
from updates.layout import Layout

SHAPES = {"bias": (7,), "conv": (6, 2, 3, 3), "dense": (10, 4), "scale": ()}
LAYOUT = Layout.of(SHAPES)


def encoded(codec, vector, seed=0):
    return codec.encode(np.asarray(vector, dtype=np.float32), LAYOUT, np.random.default_rng(seed))


@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.8, 1.0]), st.booleans())
def test_units_are_sent_whole_and_every_tensor_sends_its_share(seed, fraction, unbiased):
    codec = DropoutCodec(fraction=fraction, unbiased=unbiased)
    vector = np.random.default_rng(seed).uniform(1, 2, LAYOUT.size).astype(np.float32)
    decoded = codec.decode(encoded(codec, vector, seed), LAYOUT)
    for name, place in LAYOUT.slices().items():
        rows = SHAPES[name][0] if SHAPES[name] else 1
        got, sent = decoded[place].reshape(rows, -1), vector[place].reshape(rows, -1)
        held = got.any(axis=1)
        assert held.sum() == math.ceil(fraction * rows)
        factor = rows / held.sum() if unbiased else 1
        np.testing.assert_allclose(got[held], sent[held] * factor, rtol=2.0**-11)
        assert not got[~held].any()


def test_tensors_of_the_same_shape_send_different_units():
    layout = Layout.of({f"w{number}": (20, 2) for number in range(6)})
    decoded = DropoutCodec().decode(
        DropoutCodec().encode(np.ones(240, dtype=np.float32), layout, np.random.default_rng(0)),
        layout,
    )
    assert len({decoded[place].tobytes() for place in layout.slices().values()}) > 4


def test_half_of_the_units_take_eight_bits_a_value():
    layout = Layout.of({"w": (100, 50)})
    payload = DropoutCodec().encode(np.ones(5000, np.float32), layout, np.random.default_rng(0))
    assert len(payload) == HEADER_BYTES + 10 + 5000 == DropoutCodec().encoded_size_bound(layout)


@pytest.mark.parametrize(("unbiased", "expected"), [(True, 1.0), (False, 0.5)])
def test_the_mean_squared_error_is_as_documented(unbiased, expected):
    layout, rng = Layout.of({"w": (20, 3)}), np.random.default_rng(2)
    codec, vector = DropoutCodec(unbiased=unbiased), rng.standard_normal(60, dtype=np.float32)
    errors = [
        ((codec.decode(codec.encode(vector, layout, rng), layout) - vector) ** 2).sum()
        for _ in range(1500)
    ]
    assert np.mean(errors) / (vector**2).sum() == pytest.approx(expected, rel=0.05)


def test_feedback_follows_the_bias():
    assert (create("dropout").feedback, create("dropout").is_biased) == ("forbidden", False)
    plain = create("dropout", {"unbiased": False})
    assert (plain.feedback, plain.is_biased) == ("required", True)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"fraction": 0.0}, "fraction: 0.0: must be a number above 0 and up to 1"),
        ({"fraction": float("nan")}, "fraction: nan"),
        ({"unbiased": None}, "unbiased: None: must be true or false"),
    ],
)
def test_bad_parameters_are_refused(params, text):
    with pytest.raises(CodecParameterError, match=text):
        create("dropout", params)


@pytest.mark.parametrize(
    ("offset", "octets", "text"),
    [
        (8, struct.pack("<h", 1000), "exponent 1000"),
        (20, b"\x00\xfc", "kept value"),
    ],
)
def test_a_body_that_could_not_have_been_sent_is_refused(offset, octets, text):
    codec = DropoutCodec()
    body = bytearray(encoded(codec, np.ones(LAYOUT.size))[HEADER_BYTES:])
    body[offset : offset + len(octets)] = octets
    with pytest.raises(PayloadError, match=text):
        codec.check(pack(codec.number, LAYOUT.size, [body]), LAYOUT)
