"""Codec ``auto``: which codec a device takes, and why."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.choice import (
    ASSUMED_BYTES_S,
    CANDIDATES,
    MIN_UPLOAD_S,
    UPLOAD_SHARE,
    Accuracy,
    Circumstances,
    accuracy_of,
    choose,
    is_candidate,
    task_memory,
)
from updates.codecs import create
from updates.errors import CodecParameterError
from updates.layout import Layout, TensorSpec

MODES = get_args(Accuracy)
VALUES = 100_000


def layout_of(values):
    return Layout((TensorSpec("w", (values,)),))


def picked(accuracy, **seen):
    choice = choose(accuracy, Circumstances(**{"values": VALUES, "train_s": 1.0, **seen}))
    return choice.candidate.label


@pytest.mark.parametrize("accuracy", MODES)
def test_a_fast_link_takes_the_most_faithful_candidate_and_a_slow_one_the_smallest(accuracy):
    candidates = CANDIDATES[accuracy]
    assert picked(accuracy, rate_bytes_s=1e9) == candidates[0].label
    assert picked(accuracy, rate_bytes_s=1.0) == candidates[-1].label


def test_an_upload_may_last_half_of_the_training_and_at_least_two_seconds():
    size = CANDIDATES["exact"][0].expected_bytes(VALUES)
    assert picked("exact", rate_bytes_s=size / 1.9) == "raw-f32"
    assert picked("exact", rate_bytes_s=size / 2.1) == "fp16"
    assert picked("exact", rate_bytes_s=size / 9.9, train_s=20.0) == "raw-f32"
    assert picked("exact", rate_bytes_s=size / 10.1, train_s=20.0) == "fp16"


def test_a_link_that_was_not_measured_is_taken_for_a_slow_one():
    assert picked("exact") == "fp16"
    assert picked("exact", values=10_000) == "raw-f32"
    choice = choose("exact", Circumstances(VALUES, 1.0))
    assert "32.0 kB/s (assumed)" in choice.reason


def test_a_profile_s_rate_stands_for_a_link_that_was_not_measured_and_for_no_other():
    assumed = Circumstances(VALUES, 1.0, assumed_bytes_s=1e9)
    choice = choose("exact", assumed)
    assert choice.candidate == CANDIDATES["exact"][0]
    assert "(assumed)" in choice.reason
    measured = Circumstances(VALUES, 1.0, rate_bytes_s=10.0, assumed_bytes_s=1e9)
    assert choose("exact", measured).candidate == CANDIDATES["exact"][-1]


def test_the_reason_names_size_time_rate_and_what_was_not_taken():
    choice = choose("balanced", Circumstances(VALUES, 1.0, rate_bytes_s=8000.0))
    assert choice.reason == (
        "ecsq bits=1.0: 12.7 kB in 1.6 s at 8.0 kB/s (measured); "
        "ecsq bits=2.0 takes 3.1 s, above 2.0 s"
    )


def test_what_the_owner_allows_comes_first():
    choice = choose("high", Circumstances(VALUES, 1.0, 1e9, max_bytes=150_000))
    assert choice.candidate.label == "int8"
    assert "the owner allows 150000 bytes, too few for fp16" in choice.reason
    with pytest.raises(CodecParameterError, match="the owner allows 100"):
        choose("small", Circumstances(VALUES, 1.0, 1e9, max_bytes=100))


@given(
    st.sampled_from(MODES),
    st.integers(1, 10_000_000),
    st.floats(0, 1e6),
    st.none() | st.floats(1e-3, 1e12),
)
def test_no_candidate_before_the_one_taken_would_be_quick_enough(accuracy, values, train_s, rate):
    choice = choose(accuracy, Circumstances(values, train_s, rate))
    candidates = CANDIDATES[accuracy]
    at = candidates.index(choice.candidate)
    budget_s = max(MIN_UPLOAD_S, UPLOAD_SHARE * train_s)
    assert all(
        one.expected_bytes(values) / (rate or ASSUMED_BYTES_S) > budget_s
        for one in candidates[:at]
    )
    assert len(choice.reason) <= 300


@pytest.mark.parametrize("accuracy", MODES)
def test_candidates_become_smaller_and_are_as_long_as_expected(accuracy):
    layout, rng = layout_of(VALUES), np.random.default_rng(1)
    update = rng.standard_t(4, VALUES).astype(np.float32)
    sizes = [one.expected_bytes(VALUES) for one in CANDIDATES[accuracy]]
    assert sizes == sorted(sizes, reverse=True)
    for one, expected in zip(CANDIDATES[accuracy], sizes, strict=True):
        codec = create(one.codec_id, one.params)
        assert len(codec.encode(update, layout, rng)) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("accuracy", MODES)
def test_every_candidate_goes_with_its_accuracy_s_memory(accuracy):
    memory = task_memory("auto", {"accuracy": accuracy}, None)
    assert memory == ("none" if accuracy in {"exact", "high"} else "feedback")
    for one in CANDIDATES[accuracy]:
        feedback = create(one.codec_id, one.params).feedback
        assert feedback != ("forbidden" if memory == "feedback" else "required")
        assert is_candidate(accuracy, one.codec_id, one.params)
        assert not is_candidate(accuracy, one.codec_id, {**one.params, "more": 1})


def test_memory_of_a_named_codec_is_that_of_the_codec():
    assert task_memory("topk", {}, None) == "feedback"
    assert task_memory("int8", {}, None) == "none"
    with pytest.raises(CodecParameterError, match="error_feedback"):
        task_memory("auto", {"accuracy": "high"}, error_feedback=True)


def test_settings_of_auto_are_checked():
    assert accuracy_of({}) == "balanced"
    with pytest.raises(CodecParameterError, match="exact, high, balanced, small"):
        accuracy_of({"accuracy": "best"})
    with pytest.raises(CodecParameterError, match="bits"):
        accuracy_of({"bits": 4})
