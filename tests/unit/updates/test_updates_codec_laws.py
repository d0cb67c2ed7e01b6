"""Laws that every codec keeps, in every variant that has golden vectors."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError, WireError
from tests.support.codec_variants import variants
from updates.codecs import create, names
from updates.codecs.header import HEADER_BYTES, pack
from updates.errors import NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (5,), "b": (3, 4), "c": ()})
MAX_F32 = float(np.finfo(np.float32).max)

vectors = hnp.arrays(np.float32, LAYOUT.size, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))  # fmt: skip

VARIANTS = variants()
every_codec = pytest.mark.parametrize("codec", list(VARIANTS.values()), ids=list(VARIANTS))


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(layout, seed=0):
    return rng(seed).standard_normal(layout.size, dtype=np.float32)


def test_numbers_of_codecs_are_one_byte_and_differ():
    numbers = [create(name).number for name in names()]
    assert len(set(numbers)) == len(numbers)
    assert all(1 <= number <= 255 for number in numbers)


@every_codec
@given(vector=vectors)
@settings(max_examples=25)
@example(vector=np.full(LAYOUT.size, MAX_F32, dtype=np.float32))
@example(vector=np.full(LAYOUT.size, -MAX_F32, dtype=np.float32))
@example(vector=np.full(LAYOUT.size, 1e-45, dtype=np.float32))
@example(vector=np.zeros(LAYOUT.size, dtype=np.float32))
def test_decoded_values_are_finite(codec, vector):
    decoded = codec.decode(codec.encode(vector, LAYOUT, rng()), LAYOUT)
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()


@every_codec
def test_a_zero_update_decodes_to_zero(codec):
    zero = np.zeros(LAYOUT.size, dtype=np.float32)
    assert not codec.decode(codec.encode(zero, LAYOUT, rng()), LAYOUT).any()


@every_codec
@given(vector=vectors, weight=st.floats(0, 1e6))
@settings(max_examples=20)
def test_add_into_adds_weight_times_the_decoded_update(codec, vector, weight):
    payload = codec.encode(vector, LAYOUT, rng())
    accumulator = np.arange(LAYOUT.size, dtype=np.float64)
    expected = accumulator + weight * codec.decode(payload, LAYOUT).astype(np.float64)
    codec.add_into(accumulator, payload, LAYOUT, weight)
    np.testing.assert_array_equal(accumulator, expected)


@every_codec
def test_add_into_refuses_an_accumulator_of_another_size(codec):
    payload = codec.encode(normal(LAYOUT), LAYOUT, rng())
    with pytest.raises(ValueError, match=r"shape \(17,\), the layout has \(18,\)"):
        codec.add_into(np.zeros(17), payload, LAYOUT, 1.0)


@every_codec
def test_the_same_seed_gives_the_same_bytes(codec):
    vector = normal(LAYOUT)
    first = codec.encode(vector, LAYOUT, rng(5))
    assert codec.encode(vector, LAYOUT, rng(5)) == first
    assert (codec.encode(vector, LAYOUT, rng(6)) != first) == codec.is_random


@every_codec
def test_encoding_leaves_the_vector_as_it_was(codec):
    vector = normal(LAYOUT)
    before = vector.copy()
    vector.flags.writeable = False
    codec.encode(vector, LAYOUT, rng())
    np.testing.assert_array_equal(vector, before)


@every_codec
def test_a_strided_vector_encodes_as_its_copy(codec):
    wide = rng().standard_normal(2 * LAYOUT.size, dtype=np.float32)[::2]
    assert codec.encode(wide, LAYOUT, rng()) == codec.encode(wide.copy(), LAYOUT, rng())


@every_codec
@given(vector=vectors)
@settings(max_examples=15)
def test_payloads_keep_to_the_size_bound(codec, vector):
    payload = codec.encode(vector, LAYOUT, rng())
    assert len(payload) <= codec.encoded_size_bound(LAYOUT)


@every_codec
def test_bytes_bytearrays_and_memoryviews_decode_alike(codec):
    payload = codec.encode(normal(LAYOUT), LAYOUT, rng())
    expected = codec.decode(payload, LAYOUT)
    for other in (bytearray(payload), memoryview(payload)):
        np.testing.assert_array_equal(codec.decode(other, LAYOUT), expected)


@every_codec
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_not_encoded(codec, value):
    vector = normal(LAYOUT)
    vector[11] = value
    with pytest.raises(NonFiniteError, match="value 11"):
        codec.encode(vector, LAYOUT, rng())


@every_codec
def test_a_vector_of_another_size_is_not_encoded(codec):
    with pytest.raises(PayloadError, match="shape"):
        codec.encode(np.zeros(3, dtype=np.float32), LAYOUT, rng())


@every_codec
def test_a_truncated_or_extended_payload_is_refused(codec):
    payload = codec.encode(normal(LAYOUT), LAYOUT, rng())
    for other in (*(payload[:length] for length in range(len(payload))), payload + b"\0"):
        with pytest.raises(PayloadError):
            codec.check(other, LAYOUT)


@every_codec
def test_a_payload_above_the_size_bound_is_refused_unread_with_both_lengths(codec):
    bound = codec.encoded_size_bound(LAYOUT)
    with pytest.raises(PayloadError, match=f"{bound + 1} bytes, 12 to {bound} are possible"):
        codec.check(bytes(bound + 1), LAYOUT)


@every_codec
def test_a_body_of_another_length_is_refused_even_with_a_good_checksum(codec):
    body = codec.encode(normal(LAYOUT), LAYOUT, rng())[HEADER_BYTES:]
    for other in (*(body[:length] for length in range(len(body))), body + b"\0"):
        with pytest.raises(PayloadError):
            codec.check(pack(codec.number, LAYOUT.size, [other]), LAYOUT)


@every_codec
@given(position=st.integers(0, 10_000), change=st.integers(1, 255))
@settings(max_examples=25)
def test_one_changed_byte_is_found(codec, position, change):
    payload = bytearray(codec.encode(normal(LAYOUT), LAYOUT, rng()))
    payload[position % len(payload)] ^= change
    with pytest.raises(PayloadError):
        codec.check(payload, LAYOUT)


@every_codec
@given(data=st.binary(max_size=120))
@settings(max_examples=25)
def test_any_bytes_raise_only_wire_errors(codec, data):
    with pytest.raises(WireError):
        codec.decode(data, LAYOUT)


@every_codec
@given(data=st.data())
@settings(max_examples=60)
def test_any_body_decodes_to_finite_values_or_raises_only_wire_errors(codec, data):
    length = codec.encoded_size_bound(LAYOUT) - HEADER_BYTES
    body = data.draw(st.binary(min_size=length, max_size=length) | st.binary(max_size=length))
    payload = pack(codec.number, LAYOUT.size, [body])
    try:
        codec.check(payload, LAYOUT)
    except WireError:
        before = np.ones(LAYOUT.size)
        with pytest.raises(WireError):
            codec.add_into(before, payload, LAYOUT, 2.0)
        assert (before == 1).all()
    else:
        assert np.isfinite(codec.decode(payload, LAYOUT)).all()


@every_codec
def test_the_header_is_checked_before_the_body(codec):
    payload = codec.encode(normal(LAYOUT), LAYOUT, rng())
    body = payload[HEADER_BYTES:]
    crc = zlib.crc32(body)
    size, number = LAYOUT.size, codec.number
    for header, text in (
        ((b"XX", 1, number, size, crc), "magic"),
        ((b"FU", 2, number, size, crc), "version is 2, expected 1"),
        ((b"FU", 1, 99, size, crc), f"codec number is 99, expected {number}"),
        ((b"FU", 1, number, 2**32 - 1, crc), "number of values is 4294967295, expected 18"),
        ((b"FU", 1, number, size, crc ^ 1), "CRC-32"),
    ):
        with pytest.raises(PayloadError, match=text):
            codec.check(struct.pack("<2sBBII", *header) + body, LAYOUT)


@every_codec
def test_the_payload_of_another_codec_is_refused(codec):
    for other in map(create, names()):
        if other.codec_id != codec.codec_id:
            payload = other.encode(normal(LAYOUT), LAYOUT, rng())
            with pytest.raises(PayloadError):
                codec.check(payload, LAYOUT)
