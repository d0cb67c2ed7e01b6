"""Model files: the safetensors library reads ours, we read its, and nothing else passes."""

import json
import mmap
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PayloadError, WireError
from updates.layout import MAX_TENSORS, Layout
from updates.model_file import decode_model, encode_model, model_header

LAYOUT = Layout.of({"fc.weight": (2, 3), "fc.bias": (2,), "größe": ()})
VECTOR = np.arange(9, dtype=np.float32) / 7


def model_bytes(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_the_safetensors_library_reads_our_file():
    arrays = safetensors.numpy.load(encode_model(LAYOUT, VECTOR))
    expected = LAYOUT.unflatten(VECTOR)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("metadata", [None, {"format": "np"}])
def test_we_read_the_file_of_the_safetensors_library(metadata):
    arrays = {name: array.copy() for name, array in LAYOUT.unflatten(VECTOR).items()}
    layout, vector = decode_model(safetensors.numpy.save(arrays, metadata))
    assert layout == LAYOUT
    np.testing.assert_array_equal(vector, VECTOR)


def test_decode_undoes_encode():
    layout, vector = decode_model(encode_model(LAYOUT, VECTOR))
    assert layout.digest == LAYOUT.digest
    np.testing.assert_array_equal(vector, VECTOR)


def test_the_file_is_the_header_and_then_the_vector():
    assert encode_model(LAYOUT, VECTOR) == model_header(LAYOUT) + VECTOR.tobytes()


def test_data_begin_at_a_multiple_of_8():
    assert all(len(model_header(Layout.of({"x" * n: (1,)}))) % 8 == 0 for n in range(1, 10))


def test_the_decoded_vector_lies_in_the_buffer_and_cannot_be_written():
    buffer = bytearray(encode_model(LAYOUT, VECTOR))
    _, vector = decode_model(buffer)
    assert np.shares_memory(vector, np.frombuffer(buffer, dtype=np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


def test_a_memory_map_is_read_in_place():
    data = encode_model(LAYOUT, VECTOR)
    mapped = mmap.mmap(-1, len(data))
    mapped.write(data)
    _, vector = decode_model(mapped)
    np.testing.assert_array_equal(vector, VECTOR)
    del vector
    mapped.close()


def test_values_that_are_not_finite_are_left_to_their_own_check():
    vector = np.full(9, np.nan, dtype=np.float32)
    assert np.isnan(decode_model(encode_model(LAYOUT, vector))[1]).all()


def test_encode_refuses_a_vector_of_another_size():
    with pytest.raises(PayloadError, match="shape"):
        encode_model(LAYOUT, VECTOR[:-1])


def test_a_header_above_1_mib_is_neither_written_nor_read():
    long_names = {f"{number:0>250}": (1,) for number in range(MAX_TENSORS)}
    with pytest.raises(PayloadError, match="at most 1048576"):
        model_header(Layout.of(long_names))
    with pytest.raises(PayloadError, match="at most 1048576"):
        decode_model(model_bytes(b"{}", length=2**63))


ONE = b"\0" * 4


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "0 bytes, at least 8"),
        (model_bytes(b"{}", length=3), "3 bytes announced"),
        (model_bytes(b' {"a":1}'), "begin with"),
        (model_bytes(b"{"), "not JSON"),
        (model_bytes(b'{"\xff":1}'), "not JSON"),
        (model_bytes(b'{"a":' * 100_000), "not JSON"),
        (model_bytes(b'{"a":1,"a":2}'), "occurs twice"),
        (model_bytes({}), "tensors: 0"),
        (model_bytes({"__metadata__": {}}), "tensors: 0"),
        (model_bytes({"a": 1}), "exactly"),
        (model_bytes({"a": entry() | {"more": 1}}, ONE), "exactly"),
        (model_bytes({"a": entry(dtype="F16")}, ONE), "only F32"),
        (model_bytes({"a": entry(dtype=["F32"])}, ONE), "only F32"),
        (model_bytes({"a": entry(shape=[True])}, ONE), "integers"),
        (model_bytes({"a": entry(shape=[1.0])}, ONE), "integers"),
        (model_bytes({"a": entry(shape=[-1])}, ONE), "integers"),
        (model_bytes({"a": entry() | {"shape": 1}}, ONE), "integers"),
        (model_bytes({"a": entry(offsets=[0])}, ONE), "1 data_offsets"),
        (model_bytes({"a": entry(offsets=[0, 10**30])}, ONE), "integers"),
        (model_bytes({"a": entry(offsets=[4, 8])}, ONE * 2), "without gaps"),
        (model_bytes({"a": entry(offsets=[0, 8])}, ONE * 2), "without gaps"),
        (model_bytes({"a": entry(), "b": entry()}, ONE), "without gaps"),
        (model_bytes({"a": entry(offsets=[4, 8]), "b": entry()}, ONE * 2), "sorted by name"),
        (model_bytes({"a": entry()}, ONE[:-1]), "bytes, its header asks for"),
        (model_bytes({"a": entry()}, ONE + b"\0"), "bytes, its header asks for"),
        (model_bytes({"a": entry(shape=[2**31, 2**31])}, ONE), "dimension"),
    ],
)
def test_a_file_that_is_not_strict_is_refused_with_the_reason(data, text):
    with pytest.raises(PayloadError, match=text):
        decode_model(data)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_raise_only_wire_errors(data):
    with pytest.raises(WireError):
        decode_model(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "dtype", "shape", "data_offsets", "__metadata__"]),
            inner | st.just("F32") | st.just([0, 4]),
            max_size=3,
        )
    ),
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3), st.binary(max_size=16))
@settings(max_examples=200)
def test_any_json_header_raises_only_wire_errors(header, data):
    with pytest.raises(WireError):
        decode_model(model_bytes(header, data))


@given(st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=200)
def test_a_changed_byte_gives_a_layout_or_a_wire_error(position, change):
    data = bytearray(encode_model(LAYOUT, VECTOR))
    data[position % len(data)] ^= change
    try:
        layout, vector = decode_model(data)
    except WireError:
        return
    assert vector.shape == (layout.size,)
