"""Sparse ternary compression: one magnitude, the right positions, a short payload."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from updates.codecs import create
from updates.codecs.header import HEADER_BYTES, pack
from updates.codecs.stc import StcCodec
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (10,)})
LONG = Layout.of({"w": (300, 1000)})


def decoded(codec, vector, layout):
    vector = np.asarray(vector, dtype=np.float32)
    return codec.decode(codec.encode(vector, layout, np.random.default_rng(0)), layout)


def test_the_kept_values_are_signs_times_the_mean_of_their_magnitudes():
    values = [0.1, -4, 0.2, 8, 0, -6, 0.3, 0.1, 0, 1]
    expected = [0, -6, 0, 6, 0, -6, 0, 0, 0, 0]
    assert decoded(StcCodec(fraction=0.3), values, LAYOUT).tolist() == expected


def test_of_equal_magnitudes_the_first_are_kept():
    assert decoded(StcCodec(fraction=0.15), [-1.0] * 10, LAYOUT).tolist() == [-1, -1] + [0] * 8


@given(
    hnp.arrays(np.float32, 10, elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.sampled_from([0.1, 0.3, 1.0]),
)
@settings(max_examples=150)
def test_the_error_is_the_energy_without_that_of_the_levels(vector, fraction):
    codec = StcCodec(fraction=fraction)
    result = decoded(codec, vector, LAYOUT).astype(np.float64)
    exact = vector.astype(np.float64)
    kept = np.sort(np.abs(exact))[-max(1, round(fraction * 10)) :]
    energy = (exact**2).sum()
    error = ((result - exact) ** 2).sum()
    assert error == pytest.approx(
        energy - kept.size * kept.mean() ** 2, rel=1e-5, abs=1e-5 * energy + 1e-80
    )


def test_one_percent_takes_less_than_a_tenth_of_a_bit_a_value():
    vector = np.random.default_rng(1).standard_normal(LONG.size, dtype=np.float32)
    payload = StcCodec(fraction=0.01).encode(vector, LONG, np.random.default_rng(0))
    assert 9.0 < len(payload) * 8 / 3000 < 9.3
    result = StcCodec(fraction=0.01).decode(payload, LONG)
    assert 0.9 < ((result - vector) ** 2).sum() / (vector**2).sum() < 0.92


def test_the_largest_float32_keeps_its_magnitude():
    largest = np.finfo(np.float32).max
    assert decoded(StcCodec(fraction=1.0), [largest, -largest] * 5, LAYOUT)[1] == -largest


def test_feedback_is_required_and_nothing_is_random():
    assert (StcCodec().feedback, StcCodec().is_biased, StcCodec().is_random) == (
        "required",
        True,
        False,
    )


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, "0.1", True, None, float("nan")])
def test_a_fraction_that_is_no_share_is_refused(fraction):
    with pytest.raises(CodecParameterError, match=r"fraction: .*above 0 and up to 1"):
        create("stc", {"fraction": fraction})


@pytest.mark.parametrize(
    ("field", "value", "error", "text"),
    [
        (0, 4, PayloadError, "4 values kept, this codec keeps 3"),
        (0, 2**32 - 1, PayloadError, "4294967295 values kept"),
        (1, float("nan"), NonFiniteError, "mean magnitude nan"),
        (1, float("inf"), NonFiniteError, "mean magnitude inf"),
        (1, -1.0, NonFiniteError, "mean magnitude -1"),
        (2, 31, PayloadError, "Rice parameter 31"),
        (2, 9, PayloadError, "positions"),
    ],
)
def test_a_head_that_could_not_have_been_sent_is_refused(field, value, error, text):
    codec, head = StcCodec(fraction=0.3), struct.Struct("<IfB3x")
    vector = np.arange(10, dtype=np.float32)
    body = bytearray(codec.encode(vector, LAYOUT, np.random.default_rng(0))[HEADER_BYTES:])
    fields = list(head.unpack_from(body))
    fields[field] = value
    head.pack_into(body, 0, *fields)
    with pytest.raises(error, match=text):
        codec.check(pack(codec.number, LAYOUT.size, [body]), LAYOUT)
