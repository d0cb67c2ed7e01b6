"""The entropy coder: near the entropy, symbols come back, and hostile codes are refused."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError
from updates.codecs import rans
from updates.codecs.rans_frequencies import TOTAL, pack, quantize, unpack

DISTRIBUTIONS = {
    "two": [0.9, 0.1],
    "skewed": [0.7, 0.2, 0.06, 0.03, 0.01],
    "sixteen alike": [1 / 16] * 16,
    "all bytes": [1 / 256] * 256,
}


def drawn(name, count, seed=0):
    shares = DISTRIBUTIONS[name]
    return np.random.default_rng(seed).choice(len(shares), count, p=shares).astype(np.uint8)


def coded(symbols, ballast=b"", payload_bytes=None):
    counts = np.bincount(symbols)
    around = rans.ideal_bits(counts) / 8 if payload_bytes is None else payload_bytes
    return rans.encode(symbols, counts, ballast, around)


@given(
    st.binary(min_size=1, max_size=3000),
    st.integers(1, 256),
    st.binary(max_size=40),
    st.floats(0, 1e5),
)
@settings(max_examples=150)
def test_symbols_and_ballast_come_back_within_the_bound(octets, alphabet, ballast, around):
    symbols = (np.frombuffer(octets, dtype=np.uint8).astype(int) % alphabet).astype(np.uint8)
    code, taken = coded(symbols, ballast, around)
    assert len(code) <= rans.size_bound(symbols.size)
    decoded = rans.decode(memoryview(code), symbols.size)
    np.testing.assert_array_equal(decoded.symbols, symbols)
    assert decoded.alphabet == int(symbols.max()) + 1
    assert taken <= len(ballast)
    assert decoded.ballast[:taken] == ballast[:taken]
    assert not any(decoded.ballast[taken:])


@pytest.mark.parametrize("name", ["two", "skewed", "sixteen alike", "all bytes"])
@pytest.mark.parametrize("count", [20_000, 300_000])
def test_a_code_is_within_three_percent_of_the_entropy_and_its_tables(name, count):
    symbols = drawn(name, count)
    code, taken = coded(symbols, bytes(10**5))
    entropy = rans.ideal_bits(np.bincount(symbols)) / 8
    assert entropy < len(code) - taken < 1.03 * entropy + 1.6 * len(DISTRIBUTIONS[name]) + 8


@pytest.mark.parametrize("name", ["two", "skewed", "sixteen alike"])
def test_a_code_is_shorter_than_the_best_of_zlib(name):
    symbols = drawn(name, 100_000)
    assert len(coded(symbols)[0]) < 0.95 * len(zlib.compress(symbols.tobytes(), 9))


def test_the_entropy_of_known_counts():
    assert rans.ideal_bits(np.array([8, 8])) == 16
    assert rans.ideal_bits(np.array([2, 0, 1, 1])) == 6
    assert rans.ideal_bits(np.array([5])) == 0


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=256).filter(any))
def test_frequencies_sum_and_leave_no_symbol_without(counts):
    frequencies = quantize(np.array(counts))
    assert int(frequencies.sum()) == TOTAL
    assert all((frequencies > 0) == (np.array(counts) > 0))
    packed = pack(frequencies)
    again, used = unpack(memoryview(packed + b"more"))
    assert used == len(packed)
    assert again.tolist() == frequencies.tolist()


@given(st.binary(max_size=400), st.integers(1, 5000))
@settings(max_examples=300)
def test_any_bytes_give_symbols_or_are_refused(octets, count):
    try:
        decoded = rans.decode(memoryview(octets), count)
    except PayloadError:
        return
    assert decoded.symbols.size == count
    assert decoded.symbols.max() < decoded.alphabet


@given(st.data())
@settings(max_examples=300)
def test_changed_codes_give_symbols_or_are_refused(data):
    code = bytearray(coded(drawn("skewed", 400))[0])
    for _ in range(data.draw(st.integers(1, 3))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = rans.decode(memoryview(code), 400)
    except PayloadError:
        return
    assert decoded.symbols.size == 400
    assert decoded.symbols.max() < decoded.alphabet


def parts(lanes=2, frequencies=(TOTAL // 2, TOTAL // 2), states=(65536, 65536), words=()):
    head = struct.pack("<H", lanes) + pack(np.array(frequencies))
    return head + struct.pack(f"<{len(states)}I{len(words)}H", *states, *words)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (parts()[:2], "2 bytes"),
        (parts(lanes=0), "0 lanes, 1 to 7 are possible"),
        (parts(lanes=8), "8 lanes, 1 to 7"),
        (parts(frequencies=(TOTAL, 1)), "sum to 16385"),
        (parts(frequencies=(TOTAL - 1,)), "sum to 16383"),
        (parts()[:4], "within a frequency"),
        (struct.pack("<HB", 2, 0) + b"\x80\x80\x80\x01", "too long"),
        (parts()[:12], "the states of 2 lanes"),
        (parts() + b"\0", "words of 2"),
        (parts(states=(65535, 65536)), "state is 65535"),
        (parts(), "0 are needed|words left"),
        (parts(states=(2**32 - 1, 2**32 - 1), words=[0] * 90), "has not ended|were read"),
        (parts() + bytes(2000), "are possible"),
    ],
)
def test_a_code_that_could_not_have_been_made_is_refused(code, text):
    with pytest.raises(PayloadError, match=text):
        rans.decode(memoryview(code), 100)


def test_every_shortened_code_is_refused():
    code, _ = coded(drawn("skewed", 300))
    for length in range(len(code)):
        with pytest.raises(PayloadError):
            rans.decode(memoryview(code[:length]), 300)


def test_a_code_of_another_number_of_symbols_is_refused():
    code, _ = coded(drawn("skewed", 300))
    for count in (299, 301):
        with pytest.raises(PayloadError):
            rans.decode(memoryview(code), count)
