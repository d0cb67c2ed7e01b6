"""What a training graph looks like on the way, and what is refused."""

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.graph_file import decode_graph, encode_graph
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
