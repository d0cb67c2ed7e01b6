import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bids import MAX_CLOCK, Bid, decode_bid
from schemas.errors import WireError
from schemas.limits import MAX_OBJECT_BYTES

GAINS = st.floats(0, allow_nan=False) | st.floats(0, width=32, allow_infinity=False)


@given(GAINS, st.integers(0, 1 << 40), st.integers(1, MAX_OBJECT_BYTES))
def test_a_bid_comes_back_within_its_precision(gain, clock, size_bytes):
    text = Bid(gain, clock, size_bytes).encode()
    got = decode_bid(text)
    assert len(text) == 16
    assert (got.clock, got.size_bytes) == (min(clock, MAX_CLOCK), size_bytes)
    largest = struct.unpack(">f", b"\x7f\x7f\x00\x00")[0]
    assert got.gain == pytest.approx(min(gain, largest), rel=2.0**-8, abs=1e-40)
    assert got.encode() == text


@given(st.text(max_size=20) | st.from_regex(r"\A[0-9a-f]{16}\Z"))
def test_any_text_gives_a_finite_bid_or_a_wire_error(text):
    try:
        got = decode_bid(text)
    except WireError:
        return
    assert math.isfinite(got.gain)
    assert got.gain >= 0
    assert 1 <= got.size_bytes <= MAX_OBJECT_BYTES


@given(GAINS, GAINS)
def test_a_larger_gain_never_becomes_the_smaller(one, other):
    low, high = sorted((one, other))
    assert decode_bid(Bid(low, 0, 1).encode()).gain <= decode_bid(Bid(high, 0, 1).encode()).gain


@pytest.mark.parametrize("word", ["7f80", "7fc0", "ff80", "ffff", "8000", "bf80"])
def test_a_gain_that_is_negative_infinite_or_no_number_is_refused(word):
    with pytest.raises(WireError, match="gain is negative, infinite or NaN"):
        decode_bid(word + "0000" + "00000000")


@pytest.mark.parametrize("bad", [Bid(-1, 0, 1), Bid(math.nan, 0, 1), Bid(1, -1, 1), Bid(1, 0, 0)])
def test_what_is_no_bid_is_not_written(bad):
    with pytest.raises(ValueError, match="bid: gain"):
        bad.encode()


def test_the_layout_of_a_bid_is_fixed():
    assert Bid(1.5, 3, 1000).encode() == "3fc00003000003e7"
    assert decode_bid("3fc00003000003e7") == Bid(1.5, 3, 1000)
    assert Bid(1.5, 3, 1000).cost_bits == 8000
    assert decode_bid("0000ffffffffffff") == Bid(0.0, 65535, MAX_OBJECT_BYTES)
