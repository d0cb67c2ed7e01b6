"""Error feedback: what the codec left out is sent later, to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from updates.codecs import create, names
from updates.errors import CodecParameterError, NonFiniteError
from updates.feedback import memory_of, remainder, take_step
from updates.layout import Layout
from updates.pipeline import l2_norm

LAYOUT = Layout.of({"a": (5,), "b": (3, 4), "c": ()})
TOPK = create("topk", {"fraction": 0.2})
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, LAYOUT.size, elements=finite)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(seed=0):
    return rng(seed).standard_normal(LAYOUT.size, dtype=np.float32)


def zeros():
    return np.zeros(LAYOUT.size, dtype=np.float32)


@given(updates=st.lists(vectors, min_size=1, max_size=6))
@settings(max_examples=60)
def test_who_knows_the_updates_and_the_payloads_finds_what_is_left_out(updates):
    held, again = zeros(), zeros()
    for update in updates:
        step = take_step(update, held, TOPK, LAYOUT, rng())
        with np.errstate(over="ignore"):
            whole = np.clip(update + again, np.finfo(np.float32).min, np.finfo(np.float32).max)
        again = remainder(whole, TOPK.decode(step.payload, LAYOUT))
        held = step.left_out
        assert held.tobytes() == again.tobytes()
        assert np.isfinite(held).all()


def test_all_that_was_trained_is_sent_or_left_out():
    held, sent, trained = zeros(), np.zeros(LAYOUT.size), np.zeros(LAYOUT.size)
    for seed in range(30):
        step = take_step(normal(seed), held, TOPK, LAYOUT, rng())
        held = step.left_out
        sent += TOPK.decode(step.payload, LAYOUT)
        trained += normal(seed)
    np.testing.assert_allclose(sent + held, trained, atol=2e-5)
    assert np.linalg.norm(held) < 0.6 * np.linalg.norm(normal()) * 30


def test_what_is_encoded_is_clipped_not_the_update_alone():
    codec = create("raw-f32")
    step = take_step(normal(), 10 * normal(1), codec, LAYOUT, rng(), clip_norm=0.5)
    assert l2_norm(codec.decode(step.payload, LAYOUT)) <= 0.5
    assert not step.left_out.any()  # what clipping took away is not kept


def test_an_update_that_is_not_finite_is_refused_whatever_is_held():
    update = normal()
    update[2] = np.inf
    with pytest.raises(NonFiniteError, match="value 2"):
        take_step(update, zeros(), TOPK, LAYOUT, rng())


def test_extremes_stay_finite():
    high = np.full(LAYOUT.size, np.finfo(np.float32).max, dtype=np.float32)
    assert np.isfinite(take_step(high, high, TOPK, LAYOUT, rng()).left_out).all()


@pytest.mark.parametrize(
    ("codec", "asked", "memory"),
    [
        ("topk", None, "feedback"),
        ("topk", False, "none"),
        ("topk", True, "feedback"),
        ("raw-f32", None, "none"),
        ("int8", None, "none"),
        ("int8", False, "none"),
        ("laq", None, "lazy"),
        ("laq", False, "lazy"),
    ],
)
def test_a_task_keeps_what_its_codec_needs(codec, asked, memory):
    assert memory_of(create(codec), asked) == memory


def test_allowed_feedback_is_off_until_it_is_asked_for():
    allowed = [codec for codec in map(create, names()) if codec.feedback == "allowed"]
    assert allowed
    for codec in allowed:
        assert memory_of(codec, None) == "none"
        assert memory_of(codec, True) == "feedback"


@pytest.mark.parametrize("codec", ["int8", "laq"])
def test_feedback_with_a_codec_that_forbids_it_is_refused_by_name(codec):
    with pytest.raises(CodecParameterError, match=f"error_feedback: True: not with codec {codec}"):
        memory_of(create(codec), True)
