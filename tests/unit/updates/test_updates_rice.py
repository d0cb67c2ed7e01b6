"""Rice-coded positions: they come back, they are short, and a wrong code is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.codecs.rice import best_parameter, decode_positions, encode_positions, size_bound


@st.composite
def positions_and_limits(draw):
    limit = draw(st.integers(1, 5000))
    positions = draw(st.sets(st.integers(0, limit - 1), min_size=1, max_size=80))
    return np.array(sorted(positions), dtype=np.int64), limit


@given(positions_and_limits(), st.integers(0, 14))
@settings(max_examples=150)
def test_positions_come_back_from_a_code_within_the_bound(case, parameter):
    positions, limit = case
    code = encode_positions(positions, parameter)
    assert len(code) <= size_bound(positions.size, limit, parameter)
    back = decode_positions(memoryview(code), positions.size, limit, parameter)
    np.testing.assert_array_equal(back, positions)


def test_the_code_of_a_few_positions_is_as_documented():
    # gaps 1, 0, 5 with one low bit each: plane 101 -> 0x05; high parts 0, 0, 2 -> 1 1 001 -> 0x13
    assert encode_positions(np.array([1, 2, 8]), 1).hex() == "0513"


@pytest.mark.parametrize(
    ("share", "parameter"), [(1, 0), (0.5, 0), (0.1, 3), (0.01, 6), (0.001, 9), (1e-6, 19)]
)
def test_the_parameter_follows_the_share_of_positions(share, parameter):
    assert best_parameter(int(share * 10**6), 10**6) == parameter


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_random_positions_take_little_more_than_their_entropy(share):
    limit = 400_000
    count = int(share * limit)
    positions = np.sort(np.random.default_rng(1).choice(limit, size=count, replace=False))
    code = encode_positions(positions, best_parameter(count, limit))
    entropy = -math.log2(share) - (1 - share) / share * math.log2(1 - share)
    assert entropy <= len(code) * 8 / count <= entropy + 0.15


CODE = encode_positions(np.array([1, 2, 8]), 1)


@pytest.mark.parametrize(
    ("code", "count", "limit", "parameter", "text"),
    [
        (CODE, 3, 8, 1, "the last is 8, it must be below 8"),
        (CODE, 2, 9, 1, "3 in 1 bytes of unary code, expected 2"),
        (CODE, 4, 9, 1, "3 in 1 bytes of unary code, expected 4"),
        (CODE[:1], 3, 9, 1, "1 bytes, 2 to 2 are possible"),
        (CODE + b"\0", 3, 9, 1, "3 bytes, 2 to 2 are possible"),
        (b"\x05\x13\x00", 3, 90, 1, "3 in 2 bytes"),
        (b"\x05\x00", 3, 9, 1, "0 in 1 bytes"),
        (CODE, 3, 9, 31, "Rice parameter 31"),
    ],
)
def test_a_code_of_other_positions_is_refused(code, count, limit, parameter, text):
    with pytest.raises(PayloadError, match=text):
        decode_positions(memoryview(code), count, limit, parameter)


@given(st.binary(max_size=60), st.integers(1, 40), st.integers(0, 30))
@settings(max_examples=200)
def test_any_code_gives_ascending_positions_or_a_payload_error(code, count, parameter):
    limit = 500
    try:
        positions = decode_positions(memoryview(code), count, limit, parameter)
    except PayloadError:
        return
    assert positions.size == count
    assert positions[0] >= 0
    assert positions[-1] < limit
    assert (np.diff(positions) > 0).all()
