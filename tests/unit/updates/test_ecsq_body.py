"""What a hostile or damaged body of the entropy coded quantizer does: it is refused, or it is read."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.codecs import rans
from updates.codecs.ecsq import EcsqCodec
from updates.codecs.ecsq_body import HEAD, read, write
from updates.codecs.ecsq_tokens import (
    EXTRA_BITS,
    LEVEL_BITS,
    TOKENS,
    extra_bytes,
    levels_of,
    pack_extra,
    tokens_of,
)
from updates.codecs.header import HEADER_BYTES, pack
from updates.layout import Layout

SIZE = 2000
LAYOUT = Layout.of({"a": (SIZE,)})
#: At 0.1 bits positions are apart, at 4 all levels are coded, at 6 some levels are large.
BODIES = {
    bits: EcsqCodec(bits=bits).encode(
        np.random.default_rng(3).standard_t(3, SIZE).astype(np.float32),
        LAYOUT,
        np.random.default_rng(0),
    )[HEADER_BYTES:]
    for bits in (0.1, 4.0, 6.0)
}
APART, TOGETHER = 0.1, 4.0
FIELDS = ("kept", "exponent", "form", "step", "length")


def changed(bits, **changes):
    body = bytearray(BODIES[bits])
    fields = dict(zip(FIELDS, HEAD.unpack_from(body), strict=True))
    HEAD.pack_into(body, 0, *(fields | changes).values())
    return memoryview(body)


@given(st.lists(st.integers(0, 2**LEVEL_BITS - 1), min_size=1, max_size=60))
@settings(max_examples=200)
def test_levels_come_back_from_tokens_and_their_bits(levels):
    given_levels = np.array(levels, dtype=np.int32)
    tokens = tokens_of(given_levels)
    assert tokens.max() < TOKENS
    extra = pack_extra(given_levels, tokens)
    assert len(extra) == extra_bytes(tokens)
    np.testing.assert_array_equal(levels_of(tokens, memoryview(extra)), given_levels)


def test_tokens_ascend_with_levels_without_a_gap():
    tokens = tokens_of(np.arange(5000, dtype=np.int32)).astype(int)
    assert set(np.diff(tokens)) == {0, 1}
    assert tokens[:17].tolist() == list(range(17))
    assert tokens_of(np.array([2**LEVEL_BITS - 1], dtype=np.int32))[0] == TOKENS - 1
    assert EXTRA_BITS[tokens[16]] == 1


def test_both_forms_and_large_levels_are_among_the_bodies():
    forms = {bits: HEAD.unpack_from(body)[2] for bits, body in BODIES.items()}
    assert forms[APART] < 30
    assert forms[TOGETHER] == 255
    values = read(memoryview(BODIES[6.0]), SIZE).values
    step, exponent = HEAD.unpack_from(BODIES[6.0])[3], HEAD.unpack_from(BODIES[6.0])[1]
    assert np.abs(values).max() > 16 * np.ldexp(step, exponent)


@pytest.mark.parametrize("bits", list(BODIES))
@given(data=st.data())
@settings(max_examples=200)
def test_a_changed_body_is_refused_or_gives_finite_values(bits, data):
    body = bytearray(BODIES[bits])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    codec = EcsqCodec(bits=bits)
    try:
        result = codec.decode(pack(codec.number, SIZE, [body]), LAYOUT)
    except PayloadError:
        return
    assert np.isfinite(result).all()


@pytest.mark.parametrize("bits", list(BODIES))
def test_a_shortened_or_longer_body_is_refused(bits):
    body = BODIES[bits]
    for other in (
        *(body[:length] for length in range(0, len(body), 5)),
        body + b"\0",
        body + bytes(9),
    ):
        with pytest.raises(PayloadError):
            read(memoryview(other), SIZE)


@pytest.mark.parametrize(
    ("bits", "changes", "text"),
    [
        (APART, {"kept": 0}, "for no levels"),
        (APART, {"kept": SIZE + 1}, "2001 levels that are not zero, there are 2000"),
        (TOGETHER, {"kept": 3}, "the head says 3"),
        (TOGETHER, {"form": 4}, "symbols|positions|update"),
        (APART, {"form": 255}, "symbols|update"),
        (APART, {"form": 31}, "Rice parameter 31"),
        (APART, {"exponent": 129}, "exponent 129"),
        (APART, {"exponent": -149}, "exponent -149"),
        (APART, {"step": 0.0}, r"step 0.0, it must be above 0 and below 2"),
        (APART, {"step": 2.0}, "step 2.0"),
        (APART, {"step": float("nan")}, "step nan"),
        (APART, {"length": 2**32 - 1}, "4294967295 bytes of code"),
        (APART, {"length": 1}, "symbols: 1 bytes"),
    ],
)
def test_a_head_that_could_not_have_been_sent_is_refused(bits, changes, text):
    with pytest.raises(PayloadError, match=text):
        read(changed(bits, **changes), SIZE)


def body_of_token(token, after):
    code, _ = rans.encode(np.full(SIZE, token, np.uint8), np.bincount([token] * SIZE), b"", 0)
    return memoryview(HEAD.pack(SIZE, 0, 255, 1e-3, len(code)) + code + after)


def test_a_token_that_does_not_exist_is_refused():
    with pytest.raises(PayloadError, match=f"token {TOKENS}, tokens are below {TOKENS}"):
        read(body_of_token(TOKENS, bytes(4000)), SIZE)


@pytest.mark.parametrize("half", [0x0000, 0x7C00, 0x7E00, 0xBC00, 0x4C00])
def test_a_centroid_that_is_no_positive_number_of_steps_is_refused(half):
    with pytest.raises(PayloadError, match="centroid"):
        read(body_of_token(1, struct.pack("<H", half) + bytes(100)), SIZE)


def test_the_largest_levels_of_the_largest_step_stay_finite():
    huge = np.full(SIZE, 2**LEVEL_BITS - 1, dtype=np.int32)
    opened = read(memoryview(write(huge, np.ones(SIZE, np.float32), 128, 1.9)), SIZE)
    assert np.isfinite(opened.values).all()
    assert opened.values.max() == np.finfo(np.float32).max
