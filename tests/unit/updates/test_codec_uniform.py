"""Uniform quantization between minimum and maximum: its bounds and what it refuses."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from tests.support.codec_bodies import body_of, check_body, decoded_body, draws_of, round_trip
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (7,), "b": (2, 3)})
MAX_F32 = float(np.finfo(np.float32).max)
every_width = pytest.mark.parametrize("bits", range(1, 9))
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, 13, elements=finite)
ENDS = np.array([-MAX_F32] * 7 + [MAX_F32, -MAX_F32] * 3, dtype=np.float32)


def steps_of(vector, bits):
    steps = np.empty(vector.shape)
    for values in LAYOUT.slices().values():
        part = vector[values].astype(np.float64)
        steps[values] = (part.max() - part.min()) / (2**bits - 1)
    return steps


@every_width
@given(vector=vectors)
@example(vector=ENDS)
@settings(max_examples=40)
def test_errors_are_below_a_step_and_below_half_of_one_to_the_nearest(bits, vector):
    step = steps_of(vector, bits)
    rounding = 2.0**-23 * np.abs(vector.astype(np.float64)).max() + 2e-45
    for stochastic, share in ((True, 1), (False, 0.5)):
        codec = create("uniform", {"bits": bits, "stochastic": stochastic})
        error = np.abs(round_trip(codec, vector, LAYOUT) - vector)
        assert (error <= share * step * (1 + 1e-4) + rounding).all()


@every_width
def test_smallest_and_largest_are_exact_and_the_variance_is_bounded(bits):
    vector = np.array([-3, 0, 0.5, 1, 2, 3, 11, 5, 5, 5, 5, 5, 5], dtype=np.float32)
    draws = draws_of(create("uniform", {"bits": bits}), vector, LAYOUT, 800)
    assert (draws[:, [0, 6]] == [-3, 11]).all()
    assert (draws[:, 7:] == 5).all()
    assert (draws.var(axis=0) <= steps_of(vector, bits) ** 2 / 4 * 1.1 + 1e-30).all()


def test_wire_layout_is_ranges_then_codes():
    codec = create("uniform", {"bits": 2, "stochastic": False})
    body = body_of(codec, [0, 1, 2, 3, 0, 0, 0, 4, 7, 4, 4, 4, 4], LAYOUT)
    assert struct.unpack_from("<4f", body) == (0, 3, 4, 7)
    assert bytes(body[16:]) == bytes([0b11100100, 0b00000000, 0b00000011, 0])
    assert decoded_body(codec, body, LAYOUT)[:4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "ends", [(float("nan"), 1), (0, float("nan")), (0, float("inf")), (float("-inf"), 0), (2, 1)]
)
def test_a_range_that_could_not_have_been_sent_is_refused(ends):
    codec = create("uniform")
    body = body_of(codec, range(13), LAYOUT)
    struct.pack_into("<2f", body, 8, *ends)
    with pytest.raises(NonFiniteError, match="not finite, or out of order"):
        check_body(codec, body, LAYOUT)


def test_lengths_and_padding_are_checked():
    codec = create("uniform", {"bits": 1})
    body = body_of(codec, range(13), LAYOUT)
    with pytest.raises(PayloadError, match="body length in bytes is 17, expected 18"):
        check_body(codec, body[:-1], LAYOUT)
    body[-1] |= 0x20
    with pytest.raises(PayloadError, match="3 bits after the last code"):
        check_body(codec, body, LAYOUT)


@pytest.mark.parametrize(
    "params", [{"bits": 0}, {"bits": 9}, {"bits": False}, {"bits": None}, {"stochastic": "yes"}]
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(CodecParameterError, match="must be"):
        create("uniform", params)
