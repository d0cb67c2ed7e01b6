"""The way of an update: clip, encode, and the gate before it is accepted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from updates.arrays import BLOCK_VALUES, check_finite
from updates.codecs import create, names
from updates.errors import NonFiniteError
from updates.layout import Layout
from updates.pipeline import check_update, clip_to_norm, encode_update, l2_norm

LAYOUT = Layout.of({"a": (4,), "b": (2, 3)})


def rng(seed=0):
    return np.random.default_rng(seed)


@given(
    hnp.arrays(
        np.float32, st.integers(1, 50), elements=st.floats(-(2.0**100), 2.0**100, width=32)
    ),
    st.floats(1e-6, 1e6),
)
@settings(max_examples=150)
def test_a_clipped_update_is_never_longer_than_the_norm(vector, max_norm):
    clipped = clip_to_norm(vector, max_norm)
    assert clipped.dtype == np.float32
    assert l2_norm(clipped) <= max_norm


def test_clipping_keeps_the_direction_over_many_blocks():
    vector = rng().standard_normal(2 * BLOCK_VALUES + 5, dtype=np.float32)
    clipped = clip_to_norm(vector, 1.0)
    assert l2_norm(clipped) == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_allclose(clipped * l2_norm(vector), vector, rtol=1e-6)


def test_a_short_update_is_returned_itself():
    vector = np.array([3, 4], dtype=np.float32)
    assert clip_to_norm(vector, 5.0) is vector


def test_norm_is_summed_in_float64():
    largest = np.full(4, np.finfo(np.float32).max)
    assert l2_norm(largest) == pytest.approx(2 * float(largest[0]))


@pytest.mark.parametrize("max_norm", [0.0, -1.0, np.inf, np.nan])
def test_the_norm_to_clip_to_must_be_finite_and_positive(max_norm):
    with pytest.raises(ValueError, match="max_norm"):
        clip_to_norm(np.ones(2, dtype=np.float32), max_norm)


@pytest.mark.parametrize("codec_id", names())
def test_encoding_clips_first(codec_id):
    codec, delta = create(codec_id), np.full(10, 100, dtype=np.float32)
    expected = codec.encode(clip_to_norm(delta, 2.0), LAYOUT, rng())
    assert encode_update(delta, LAYOUT, codec, rng(), clip_norm=2.0) == expected
    assert encode_update(delta, LAYOUT, codec, rng()) == codec.encode(delta, LAYOUT, rng())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_an_update_with_nan_is_refused_with_its_own_code(clip_norm):
    delta = np.zeros(10, dtype=np.float32)
    delta[3] = np.nan
    with pytest.raises(NonFiniteError, match="value 3 is nan") as caught:
        encode_update(delta, LAYOUT, create("int8"), rng(), clip_norm)
    assert caught.value.code == "E_NONFINITE"


def test_an_update_of_another_layout_is_refused_before_clipping():
    with pytest.raises(PayloadError, match="shape"):
        encode_update(np.ones(9, dtype=np.float32), LAYOUT, create("int8"), rng(), 1.0)


@pytest.mark.parametrize("codec_id", names())
def test_the_gate_passes_what_was_encoded_and_nothing_cut_short(codec_id):
    codec = create(codec_id)
    payload = encode_update(np.ones(10, dtype=np.float32), LAYOUT, codec, rng())
    check_update(payload, LAYOUT, codec)
    with pytest.raises(PayloadError):
        check_update(payload[:-1], LAYOUT, codec)


@pytest.mark.parametrize("codec_id", names())
def test_the_gate_refuses_an_update_of_another_model_size(codec_id):
    codec, other = create(codec_id), Layout.of({"a": (11,)})
    payload = encode_update(np.ones(11, dtype=np.float32), other, codec, rng())
    with pytest.raises(PayloadError):
        check_update(payload, LAYOUT, codec)


@pytest.mark.parametrize("position", [0, BLOCK_VALUES - 1, BLOCK_VALUES, BLOCK_VALUES + 2])
def test_the_first_value_that_is_not_finite_is_named_wherever_it_is(position):
    vector = np.full(BLOCK_VALUES + 3, np.finfo(np.float32).max)
    check_finite(vector, "model")
    vector[position:] = -np.inf
    with pytest.raises(NonFiniteError, match=f"model: value {position} is -inf"):
        check_finite(vector, "model")
