"""How far a decoded value of the plain codecs may be from the one that was encoded."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from updates.arrays import BLOCK_VALUES
from updates.codecs import create
from updates.layout import Layout

LAYOUT = Layout.of({"a": (5,), "b": (3, 4), "c": ()})
MAX_F32 = float(np.finfo(np.float32).max)


def exact(vector, codec, layout):
    return np.zeros(vector.shape)


def half_step(vector, codec, layout):
    magnitude = np.abs(vector.astype(np.float64))
    return np.where(magnitude > 65504, magnitude - 65504, np.maximum(magnitude * 2**-11, 2**-25))


def one_step(vector, codec, layout):
    bound = np.empty(vector.shape)
    for values in layout.slices().values():
        largest = np.abs(vector[values]).max().astype(np.float64)
        bound[values] = np.maximum(largest / 127 * (1 + 1e-6), 2e-45)
        if largest > MAX_F32 * 127 / 128:
            bound[values] += MAX_F32 / 128
    return bound


def dropped_or_half_step(vector, codec, layout):
    magnitude = np.abs(vector.astype(np.float64))
    threshold = np.sort(magnitude)[-codec.kept(layout)]
    rounding = np.maximum(magnitude * 2**-11, magnitude.max() * 2**-38 + 2e-45)
    return np.where(magnitude > threshold, rounding, np.maximum(magnitude, rounding))


ERROR_BOUNDS = {
    "raw-f32": exact,
    "fp16": half_step,
    "int8": one_step,
    "topk": dropped_or_half_step,
}

vectors = hnp.arrays(np.float32, LAYOUT.size, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))  # fmt: skip

every_codec = pytest.mark.parametrize(
    "codec", [create(name) for name in ERROR_BOUNDS], ids=ERROR_BOUNDS
)


@every_codec
@given(vector=vectors)
@settings(max_examples=60)
@example(vector=np.full(LAYOUT.size, MAX_F32, dtype=np.float32))
@example(vector=np.full(LAYOUT.size, -MAX_F32, dtype=np.float32))
@example(vector=np.full(LAYOUT.size, 1e-45, dtype=np.float32))
def test_decoded_values_are_within_the_error_bound(codec, vector):
    decoded = codec.decode(codec.encode(vector, LAYOUT, np.random.default_rng(0)), LAYOUT)
    error = np.abs(decoded.astype(np.float64) - vector)
    assert (error <= ERROR_BOUNDS[codec.codec_id](vector, codec, LAYOUT)).all()


@every_codec
def test_vectors_longer_than_a_block_keep_the_error_bound(codec):
    layout = Layout.of({"a": (BLOCK_VALUES + 7,), "b": (3,), "c": (2, BLOCK_VALUES)})
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(layout.size, dtype=np.float32)
    decoded = codec.decode(codec.encode(vector, layout, rng), layout)
    error = np.abs(decoded.astype(np.float64) - vector)
    assert (error <= ERROR_BOUNDS[codec.codec_id](vector, codec, layout)).all()
