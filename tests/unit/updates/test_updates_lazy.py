"""LAQ's rules: both ends hold the same vector, and a skip changes nothing but the clock."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from updates.codecs import create
from updates.codecs.header import HEADER_BYTES, pack
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout
from updates.lazy import (
    HISTORY,
    MAX_SKIPS,
    LazyMemory,
    SkipTerms,
    advance,
    energy,
    may_skip,
    take_step,
    threshold,
)

LAYOUT = Layout.of({"a": (5,), "b": (3, 4), "c": ()})
LAQ = create("laq", {"bits": 4})
MAX_F32 = float(np.finfo(np.float32).max)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = hnp.arrays(np.float32, LAYOUT.size, elements=finite)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(seed=0):
    return rng(seed).standard_normal(LAYOUT.size, dtype=np.float32)


def step(update, memory, terms=None, codec=LAQ):
    return take_step(update, memory, codec, LAYOUT, rng(), terms=terms)


@given(updates=st.lists(vectors, min_size=1, max_size=6), bits=st.sampled_from([1, 3, 4, 8]))
@settings(max_examples=60)
def test_both_ends_hold_the_same_bits_whatever_the_updates(updates, bits):
    codec = create("laq", {"bits": bits})
    memory = LazyMemory.first(LAYOUT.size)
    central = np.zeros(LAYOUT.size, dtype=np.float32)
    for number, update in enumerate(updates):
        terms = SkipTerms(1.0, 0.5) if number else None
        taken = step(update, memory, terms, codec)
        central = advance(central, codec.decode(taken.payload, LAYOUT))
        memory = taken.memory
        assert memory.reference.tobytes() == central.tobytes()
        assert np.isfinite(central).all()


def test_the_error_of_a_value_is_at_most_the_radius_over_the_number_of_steps():
    update = normal()
    taken = step(update, LazyMemory.first(LAYOUT.size))
    radius = np.abs(update).max()
    assert np.abs(update - taken.memory.reference).max() <= radius / 15 * (1 + 1e-6)
    expected = float(np.square((update - taken.memory.reference).astype(np.float64)).sum())
    assert taken.memory.error == expected > 0


def test_the_innovation_vanishes_as_an_update_settles():
    update, memory, radii = normal(), LazyMemory.first(LAYOUT.size), []
    for _ in range(6):
        memory = step(update, memory).memory
        radii.append(float(np.abs(update - memory.reference).max()))
    assert all(after <= before / 10 for before, after in pairwise(radii))


def test_a_payload_takes_its_bits_and_a_skip_one_byte():
    taken = step(normal(), LazyMemory.first(LAYOUT.size))
    assert len(taken.payload) == HEADER_BYTES + 1 + 4 + LAYOUT.size * 4 // 8
    skipped = step(normal(), taken.memory, SkipTerms(1e9, 1.0))
    assert len(skipped.payload) == HEADER_BYTES + 1
    assert not LAQ.decode(skipped.payload, LAYOUT).any()


def test_a_skip_changes_the_clock_alone():
    first = step(normal(), LazyMemory.first(LAYOUT.size)).memory
    skipped = step(normal(1), first, SkipTerms(1e9, 1.0))
    assert skipped.has_skipped
    assert skipped.memory.reference is first.reference
    assert skipped.memory.error == first.error
    assert skipped.memory.clock == 1


def test_an_upload_sets_the_clock_back():
    memory = replace(step(normal(), LazyMemory.first(LAYOUT.size)).memory, clock=7)
    taken = step(10 * normal(1), memory, SkipTerms(1e-9, 1.0))
    assert not taken.has_skipped
    assert taken.memory.clock == 0


def test_a_device_that_skipped_too_often_sends():
    memory = LazyMemory(normal(), 0.0, MAX_SKIPS)
    assert may_skip(1.0, 0.0, memory, SkipTerms(2.0, 1.0))
    assert not may_skip(1.0, 0.0, replace(memory, clock=MAX_SKIPS + 1), SkipTerms(2.0, 1.0))


def test_the_rule_is_the_papers():
    memory, terms = LazyMemory(normal(), 0.25, 0), SkipTerms(threshold=0.5, weight=0.5)
    # p**2 * change <= threshold + 3 * p**2 * (error + error before)
    assert may_skip(2 + 3 * 1.25, 1.0, memory, terms)
    assert not may_skip(2.001 + 3 * 1.25, 1.0, memory, terms)


def test_the_weight_may_as_well_be_inside_of_the_update():
    """With Q = p * update both sides of the rule have the factor p**2, as here."""
    p = 0.3
    inside = may_skip(p**2 * 4.0, p**2 * 0.5, LazyMemory(normal(), p**2 * 0.2), SkipTerms(0.1, 1))
    outside = may_skip(4.0, 0.5, LazyMemory(normal(), 0.2), SkipTerms(0.1, p))
    assert inside == outside


def test_the_threshold_is_the_mean_of_the_last_energies_scaled():
    assert threshold([1.0] * HISTORY, 2) == pytest.approx(0.8 / 4)
    assert threshold([3.0], 1) == pytest.approx(2.4)
    assert threshold([1.0, 3.0], 10) == pytest.approx(0.8 * 2 / 100)


def test_energy_is_summed_in_float64():
    vector = np.full(200_001, 1e-3, dtype=np.float32)
    assert energy(vector) == pytest.approx(200_001 * float(np.float32(1e-3)) ** 2, rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(value):
    update = normal()
    update[3] = value
    with pytest.raises(NonFiniteError, match="value 3"):
        step(update, LazyMemory.first(LAYOUT.size))


def test_opposite_extremes_stay_finite():
    high = np.full(LAYOUT.size, MAX_F32, dtype=np.float32)
    memory = step(high, LazyMemory.first(LAYOUT.size)).memory
    memory = step(-high, memory).memory
    assert np.isfinite(memory.reference).all()
    assert np.isfinite(memory.error)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"bits": 0}, "bits"),
        ({"bits": 9}, "bits: 9: must be a whole number, 1 to 8"),
        ({"bits": 4.0}, "whole number"),
        ({"bits": True}, "whole number"),
        ({"skips": 1}, "true or false"),
        ({"stochastic": "no"}, "true or false"),
    ],
)
def test_parameters_are_checked(params, text):
    with pytest.raises(CodecParameterError, match=text):
        create("laq", params)


def test_bits_beyond_the_last_code_must_be_zero():
    layout = Layout.of({"a": (3,)})
    payload = LAQ.encode(np.array([1, -1, 1], dtype=np.float32), layout, rng())
    body = bytearray(payload[HEADER_BYTES:])
    body[-1] |= 0x10
    with pytest.raises(PayloadError, match="the 4 bits after the last code are not zero"):
        LAQ.check(pack(LAQ.number, layout.size, [bytes(body)]), layout)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, np.inf])
def test_a_radius_that_is_none_is_refused(radius):
    payload = LAQ.encode(normal(), LAYOUT, rng())
    body = bytearray(payload[HEADER_BYTES:])
    body[1:5] = np.float32(radius).tobytes()
    with pytest.raises(NonFiniteError, match="radius"):
        LAQ.check(pack(LAQ.number, LAYOUT.size, [bytes(body)]), LAYOUT)


def test_codes_cross_the_blocks_of_a_long_vector():
    layout = Layout.of({"a": (200_003,)})
    vector = rng(3).standard_normal(layout.size, dtype=np.float32)
    for bits in (1, 3, 5, 8):
        codec = create("laq", {"bits": bits})
        decoded = codec.decode(codec.encode(vector, layout, rng()), layout)
        top = 2**bits - 1
        assert np.abs(vector - decoded).max() <= np.abs(vector).max() / top * (1 + 1e-6)
