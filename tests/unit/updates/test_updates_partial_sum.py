"""Partial sums: plus is a law, the accumulator obeys it, and a refused update leaves no trace."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from updates.codecs import create, names
from updates.layout import Layout
from updates.partial_sum import Accumulator, PartialSum

LAYOUT = Layout.of({"a": (4,), "b": (3,)})
SIZE = LAYOUT.size


def sums(elements):
    return st.builds(PartialSum, hnp.arrays(np.float64, SIZE, elements=elements), st.integers(0, 2**20).map(float))  # fmt: skip


any_sums = sums(st.floats(-1e100, 1e100))
whole_sums = sums(st.integers(-(2**40), 2**40).map(float))


def same(one, other):
    return one.weight == other.weight and np.array_equal(one.total, other.total)


def payloads(codec, count):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, SIZE), dtype=np.float32)
    return [codec.encode(vector, LAYOUT, rng) for vector in vectors]


@given(any_sums, any_sums)
@settings(max_examples=50)
def test_plus_commutes_bit_for_bit(one, other):
    assert same(one + other, other + one)


@given(whole_sums, whole_sums, whole_sums)
@settings(max_examples=50)
def test_plus_associates_where_float64_does_not_round(one, two, three):
    assert same((one + two) + three, one + (two + three))


@given(any_sums)
@settings(max_examples=30)
def test_zero_is_the_identity(one):
    assert same(one + PartialSum.zero(SIZE), one)


def test_mean_is_weighted_by_the_clients_of_both_sums():
    one = PartialSum(np.array([2.0, 4.0]), 2.0)
    other = PartialSum(np.array([10.0, 0.0]), 1.0)
    mean = (one + other).mean()
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, [4.0, 4 / 3], rtol=1e-7)


def test_sums_of_other_shapes_do_not_add():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        PartialSum.zero(2) + PartialSum.zero(3)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_are_finite_and_not_negative(weight):
    with pytest.raises(ValueError, match="weight"):
        PartialSum(np.zeros(2), weight)
    with pytest.raises(ValueError, match="weight"):
        Accumulator(SIZE).add(b"", LAYOUT, create("int8"), weight)


def test_a_total_is_a_vector():
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        PartialSum(np.zeros((2, 2)), 1.0)


@pytest.mark.parametrize("nothing", [Accumulator(SIZE), PartialSum.zero(SIZE)])
def test_nothing_has_no_mean(nothing):
    with pytest.raises(ValueError, match=r"weight: 0\.0"):
        nothing.mean()


@pytest.mark.parametrize("codec_id", names())
def test_the_accumulator_equals_the_sum_of_partial_sums(codec_id):
    codec, accumulator, total = create(codec_id), Accumulator(SIZE), PartialSum.zero(SIZE)
    for weight, payload in enumerate(payloads(codec, 4), start=1):
        accumulator.add(payload, LAYOUT, codec, weight)
        decoded = codec.decode(payload, LAYOUT).astype(np.float64)
        total += PartialSum(weight * decoded, weight)
    assert accumulator.weight == 10
    assert same(accumulator.partial_sum(), total)
    np.testing.assert_array_equal(accumulator.mean(), total.mean())


def test_the_mean_of_equal_updates_is_the_update():
    codec, accumulator = create("raw-f32"), Accumulator(SIZE)
    (payload,) = payloads(codec, 1)
    for weight in (1, 2, 5):
        accumulator.add(payload, LAYOUT, codec, weight)
    np.testing.assert_array_equal(accumulator.mean(), codec.decode(payload, LAYOUT))


@pytest.mark.parametrize("codec_id", names())
def test_a_refused_update_leaves_the_accumulator_as_it_was(codec_id):
    codec, accumulator = create(codec_id), Accumulator(SIZE)
    (payload,) = payloads(codec, 1)
    accumulator.add(payload, LAYOUT, codec, 3.0)
    before = accumulator.partial_sum()
    with pytest.raises(PayloadError):
        accumulator.add(payload[:-1], LAYOUT, codec, 3.0)
    with pytest.raises(ValueError, match="accumulator"):
        accumulator.add(payload, Layout.of({"a": (2,)}), codec, 3.0)
    assert same(accumulator.partial_sum(), before)


def test_a_partial_sum_taken_does_not_change_any_more():
    codec, accumulator = create("fp16"), Accumulator(SIZE)
    first, second = payloads(codec, 2)
    accumulator.add(first, LAYOUT, codec, 1.0)
    taken = accumulator.partial_sum()
    before = taken.total.copy()
    accumulator.add(second, LAYOUT, codec, 1.0)
    np.testing.assert_array_equal(taken.total, before)
