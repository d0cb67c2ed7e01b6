"""Packing of codes of 1 to 8 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.arrays import BLOCK_VALUES
from updates.codecs import bits

every_width = pytest.mark.parametrize("width", range(1, 9))


def codes_of(width, count, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << width, size=count).astype(np.uint8)


def packed_bit_by_bit(codes, width):
    number = sum(int(code) << (width * place) for place, code in enumerate(codes))
    return number.to_bytes(bits.packed_bytes(len(codes), width), "little")


@every_width
@given(count=st.integers(1, 70), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_codes_lie_one_after_another_from_the_least_significant_bit(width, count, seed):
    codes = codes_of(width, count, seed)
    packed = bits.pack(codes, width)
    assert packed.tobytes() == packed_bit_by_bit(codes, width)
    np.testing.assert_array_equal(bits.unpack(packed, count, width), codes)


@every_width
def test_blocks_unpack_to_their_own_codes(width):
    count = 2 * BLOCK_VALUES + 11
    codes = codes_of(width, count)
    packed = bits.pack(codes, width)
    for start in (0, BLOCK_VALUES, 2 * BLOCK_VALUES):
        span = slice(start, min(start + BLOCK_VALUES, count))
        np.testing.assert_array_equal(bits.unpack_span(packed, span, width), codes[span])


@every_width
def test_all_codes_pass_where_all_have_a_meaning(width):
    codes = codes_of(width, 1001)
    bits.check(bits.pack(codes, width), codes.size, width, 1 << width)


@every_width
@pytest.mark.parametrize("place", [0, 70_000, 70_002])
def test_one_code_out_of_range_is_found_wherever_it_is(width, place):
    codes = np.zeros(70_003, dtype=np.uint8)
    codes[place] = (1 << width) - 1
    with pytest.raises(PayloadError, match=f"code {(1 << width) - 1} in .*limit"):
        bits.check(bits.pack(codes, width), codes.size, width, (1 << width) - 1)


@pytest.mark.parametrize("width", range(1, 8))
def test_padding_that_is_not_zero_is_refused(width):
    packed = bits.pack(codes_of(width, 9), width).copy()
    packed[-1] |= 0x80
    with pytest.raises(PayloadError, match="bits after the last code are not zero"):
        bits.check(packed, 9, width, 1 << width)
