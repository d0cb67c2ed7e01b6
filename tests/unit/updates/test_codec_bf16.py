"""Brain floating point: rounding to nearest even, and what it refuses."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from tests.support.codec_bodies import body_of, check_body, round_trip
from updates.codecs import create
from updates.errors import NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (6,)})
MAX_BF16 = (2 - 2**-7) * 2.0**127
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(vector=hnp.arrays(np.float32, 6, elements=finite))
@example(vector=np.full(6, np.finfo(np.float32).max, dtype=np.float32))
@settings(max_examples=200)
def test_the_error_is_at_most_half_of_the_last_place(vector):
    magnitude = np.abs(vector.astype(np.float64))
    error = np.abs(round_trip(create("bf16"), vector, LAYOUT) - vector)
    assert (error <= np.maximum(2.0**-8 * magnitude, 2.0**-134)).all()


def test_ties_go_to_the_even_neighbour():
    last = 2.0**-7
    values = [
        1 + last / 2,
        1 + 3 * last / 2,
        -1 - last / 2,
        1 + last / 2 + 2**-20,
        2 - last / 2,
        0,
    ]
    decoded = round_trip(create("bf16"), np.array(values, dtype=np.float32), LAYOUT)
    assert decoded.tolist() == [1, 1 + 2 * last, -1, 1 + last, 2, 0]


def test_what_would_become_infinite_becomes_the_largest():
    vector = np.array([3.4e38, -3.4e38, MAX_BF16, -MAX_BF16, 1, -1], dtype=np.float32)
    decoded = round_trip(create("bf16"), vector, LAYOUT)
    assert decoded.tolist() == [MAX_BF16, -MAX_BF16, MAX_BF16, -MAX_BF16, 1, -1]


def test_the_body_is_the_upper_half_of_each_value():
    body = body_of(create("bf16"), [1, -2, 0, 0.5, 3, -0.0], LAYOUT)
    assert body.hex() == "803f00c00000003f40400080"


@pytest.mark.parametrize("pattern", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF])
def test_received_values_that_are_not_finite_are_refused(pattern):
    body = body_of(create("bf16"), range(6), LAYOUT)
    struct.pack_into("<H", body, 4, pattern)
    with pytest.raises(NonFiniteError, match=r"a value in 0..5 is not finite"):
        check_body(create("bf16"), body, LAYOUT)


def test_both_lengths_are_named():
    with pytest.raises(PayloadError, match="body length in bytes is 11, expected 12"):
        check_body(create("bf16"), bytes(11), LAYOUT)
