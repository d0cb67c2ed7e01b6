"""What a training graph looks like on the way, and what is refused."""

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import graph_file
from learning.graph_file import MAX_UNPACKED_BYTES, decode_graph, encode_graph, unpacked_limit
from schemas.errors import PayloadError

MIB = 1024 * 1024


@given(st.binary(min_size=1, max_size=4096))
def test_a_graph_comes_back_as_it_was_sent(model):
    assert decode_graph(encode_graph(model), len(model)) == model


@given(st.binary(max_size=512))
def test_any_bytes_decode_or_are_refused_by_name(data):
    stream = zlib.decompressobj()
    try:
        expected = stream.decompress(data)
    except zlib.error:
        expected = b""
    if expected and stream.eof and not stream.unused_data:
        assert decode_graph(data, len(expected)) == expected
    else:
        with pytest.raises(PayloadError, match=r"^graph: "):
            decode_graph(data, 1024)


def test_a_graph_one_byte_over_the_limit_is_refused():
    data = encode_graph(b"x" * 1000)
    assert len(decode_graph(data, 1000)) == 1000
    with pytest.raises(PayloadError, match="more than 999 bytes, which is the limit"):
        decode_graph(data, 999)


def test_a_small_stream_of_a_huge_graph_does_not_take_its_memory():
    bomb = zlib.compress(bytes(256 * MIB), 9)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match="more than"):
            decode_graph(bomb, MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def test_a_cut_stream_is_refused_at_every_length():
    data = encode_graph(bytes(range(256)))
    for length in range(len(data)):
        with pytest.raises(PayloadError, match="ends before its end mark"):
            decode_graph(data[:length], MIB)


def test_bytes_after_the_stream_are_refused():
    with pytest.raises(PayloadError, match="3 after the stream"):
        decode_graph(encode_graph(b"graph") + b"abc", MIB)


def test_an_empty_graph_is_refused_on_both_sides():
    with pytest.raises(PayloadError, match="empty"):
        encode_graph(b"")
    with pytest.raises(PayloadError, match="0 bytes"):
        decode_graph(zlib.compress(b""), MIB)


@pytest.mark.parametrize("size", [1, MIB, 2 * MIB, 70 * MIB])
def test_what_central_packs_is_within_what_a_device_unpacks(size):
    for model in (bytes(size), np.random.default_rng(0).bytes(size)):
        data = encode_graph(model)
        assert decode_graph(data, unpacked_limit(len(data))) == model


def test_a_graph_that_shrinks_too_well_is_stored_as_it_is():
    assert len(encode_graph(bytes(MIB))) < MIB // 100
    assert len(encode_graph(bytes(2 * MIB))) > 2 * MIB


def test_a_bomb_is_refused_by_the_size_of_its_stream():
    bomb = zlib.compress(bytes(64 * MIB), 9)
    with pytest.raises(PayloadError, match="which is the limit"):
        decode_graph(bomb, unpacked_limit(len(bomb)))


def test_the_limit_grows_with_the_stream_to_less_than_2_gib():
    assert unpacked_limit(1000) == 16_000 + MIB
    assert unpacked_limit(100 * MIB) == 448 * MIB
    assert unpacked_limit(1024 * MIB) == MAX_UNPACKED_BYTES == 2047 * MIB


def test_a_graph_above_the_limit_is_not_packed(monkeypatch):
    monkeypatch.setattr(graph_file, "MAX_UNPACKED_BYTES", 99)
    with pytest.raises(PayloadError, match="100 bytes, the limit is 99"):
        encode_graph(b"x" * 100)
