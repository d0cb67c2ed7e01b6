"""A model and a payload give the next model, the same bits at every end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from updates.codecs import create
from updates.codecs.header import pack
from updates.layout import Layout
from updates.model_delta import apply_delta

LAYOUT = Layout.of({"a": (5,), "b": (2, 3)})
CODEC = create("topk", {"fraction": 0.3})
finite = st.floats(-(2.0**100), 2.0**100, width=32)


def vectors():
    return hnp.arrays(np.float32, LAYOUT.size, elements=finite)


@given(vectors(), vectors())
def test_the_result_is_the_sum_in_float32_and_the_model_is_left_untouched(model, update):
    before = model.tobytes()
    payload = CODEC.encode(update, LAYOUT, np.random.default_rng(0))
    got = apply_delta(model, payload, LAYOUT, CODEC)
    assert got.dtype == np.float32
    assert got.tobytes() == (CODEC.decode(payload, LAYOUT) + model).tobytes()
    assert model.tobytes() == before


def test_a_model_that_is_only_read_can_be_moved():
    model = np.ones(LAYOUT.size, np.float32)
    model.flags.writeable = False
    payload = create("raw-f32").encode(model, LAYOUT, np.random.default_rng(0))
    assert (apply_delta(model, payload, LAYOUT, create("raw-f32")) == 2).all()


def test_a_sum_that_no_float32_holds_is_refused():
    model = np.full(LAYOUT.size, np.finfo(np.float32).max, np.float32)
    payload = create("raw-f32").encode(model, LAYOUT, np.random.default_rng(0))
    with pytest.raises(PayloadError, match="model: value 0 is inf"):
        apply_delta(model, payload, LAYOUT, create("raw-f32"))


@given(st.binary(max_size=60))
def test_bytes_that_are_no_payload_are_refused(data):
    with pytest.raises(PayloadError):
        apply_delta(np.zeros(LAYOUT.size, np.float32), data, LAYOUT, CODEC)


@given(st.binary(min_size=4 * LAYOUT.size, max_size=4 * LAYOUT.size))
def test_any_body_gives_a_finite_model_or_a_payload_error(body):
    codec, model = create("raw-f32"), np.full(LAYOUT.size, 3e38, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.frombuffer(body, "<f4") + model
    payload = pack(codec.number, LAYOUT.size, [body])
    if np.isfinite(expected).all():
        assert apply_delta(model, payload, LAYOUT, codec).tobytes() == expected.tobytes()
    else:
        with pytest.raises(PayloadError):
            apply_delta(model, payload, LAYOUT, codec)


def test_a_model_of_another_layout_is_refused():
    payload = CODEC.encode(np.ones(LAYOUT.size, np.float32), LAYOUT, np.random.default_rng(0))
    with pytest.raises(PayloadError):
        apply_delta(np.zeros(3, np.float32), payload, LAYOUT, CODEC)
