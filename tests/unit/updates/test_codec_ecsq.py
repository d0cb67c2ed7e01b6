"""The entropy coded quantizer: its rate, its error, how far a value may move, its parameters."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from updates.codecs import create
from updates.codecs.ecsq import EcsqCodec
from updates.codecs.header import HEADER_BYTES
from updates.errors import CodecParameterError
from updates.layout import Layout

LONG = Layout.of({"w": (500, 600)})
#: Error of ideally coded levels with means: share of the energy of a Gaussian and of a Laplacian.
ERRORS = {0.1: (0.910, 0.833), 0.5: (0.620, 0.490), 1: (0.350, 0.266), 2: (0.0889, 0.0738), 4: (0.00557, 0.00480)}  # fmt: skip
HEAD = struct.Struct("<IhBxfI")


def of(name, size, seed=0):
    rng = np.random.default_rng(seed)
    drawn = {
        "normal": rng.standard_normal,
        "laplace": lambda count: rng.laplace(size=count),
        "student": lambda count: rng.standard_t(3, count),
        "spiky": lambda count: (
            rng.standard_normal(count) * np.exp(1.5 * rng.standard_normal(count))
        ),
    }
    return drawn[name](size).astype(np.float32)


def encoded(codec, vector, layout):
    return codec.encode(np.asarray(vector, np.float32), layout, np.random.default_rng(0))


def nmse(result, vector):
    exact = vector.astype(np.float64)
    return ((result - exact) ** 2).sum() / (exact**2).sum()


@pytest.mark.parametrize("name", ["normal", "laplace", "student", "spiky"])
@pytest.mark.parametrize("bits", [0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 4, 6])
def test_a_value_takes_the_wanted_bits_up_to_three_percent(name, bits):
    codec = EcsqCodec(bits=bits)
    payload = encoded(codec, of(name, LONG.size), LONG)
    assert 0.99 * bits < len(payload) * 8 / LONG.size < 1.03 * bits + 8 * 60 / LONG.size


@pytest.mark.parametrize("bits", list(ERRORS))
@pytest.mark.parametrize(("place", "name"), [(0, "normal"), (1, "laplace")])
def test_the_error_is_that_of_ideally_coded_levels(bits, place, name):
    codec, vector = EcsqCodec(bits=bits), of(name, LONG.size)
    result = codec.decode(encoded(codec, vector, LONG), LONG)
    assert nmse(result, vector) == pytest.approx(ERRORS[bits][place], rel=0.02)


@pytest.mark.parametrize("bits", [0.05, 1, 6])
def test_the_payload_is_about_the_entropy_of_its_levels(bits):
    codec, vector = EcsqCodec(bits=bits), of("laplace", LONG.size)
    payload = encoded(codec, vector, LONG)
    _, exponent, _, step, _ = HEAD.unpack_from(payload, HEADER_BYTES)
    levels = np.rint(np.ldexp(vector, -exponent) / np.float32(step))
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    entropy_bytes = -(shares * np.log2(shares)).sum() * levels.size / 8
    assert entropy_bytes < len(payload) < 1.03 * entropy_bytes + 100


vectors = hnp.arrays(np.float32, 40, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))  # fmt: skip


@given(vectors, st.sampled_from([0.05, 0.7, 3, 6]))
@example(np.full(40, np.finfo(np.float32).max, dtype=np.float32), 6)
@example(np.full(40, 1e-45, dtype=np.float32), 0.05)
@settings(max_examples=200)
def test_a_value_moves_by_at_most_a_step(vector, bits):
    layout, codec = Layout.of({"a": (40,)}), EcsqCodec(bits=bits)
    payload = encoded(codec, vector, layout)
    _, exponent, _, step, _ = HEAD.unpack_from(payload, HEADER_BYTES)
    result = codec.decode(payload, layout).astype(np.float64)
    bound = np.ldexp(step * 1.01, exponent) + 2e-45
    assert (np.abs(result - vector) <= bound + np.abs(vector) * 2.0**-9).all()


@pytest.mark.parametrize("bits", [0.05, 1, 6])
@pytest.mark.parametrize("size", [1, 2, 17, 300])
def test_of_short_updates_at_least_the_largest_value_arrives(bits, size):
    layout, codec = Layout.of({"a": (size,)}), EcsqCodec(bits=bits)
    vector = of("student", size, seed=size)
    result = codec.decode(encoded(codec, vector, layout), layout)
    largest = np.argmax(np.abs(vector))
    assert result[largest] != 0
    assert nmse(result, vector) < 1


def test_large_levels_arrive_exactly_to_half_a_step():
    layout, codec = Layout.of({"a": (20_000,)}), EcsqCodec(bits=6)
    vector = of("normal", 20_000) * np.float32(1e-3)
    vector[:3] = [1, -0.7, 0.2]
    payload = encoded(codec, vector, layout)
    _, exponent, _, step, _ = HEAD.unpack_from(payload, HEADER_BYTES)
    assert np.ldexp(step, exponent) < 2e-4
    result = codec.decode(payload, layout)
    np.testing.assert_allclose(result[:3], vector[:3], atol=np.ldexp(step, exponent) * 0.51)


def test_no_payload_exceeds_its_bound_where_the_histogram_sees_one_cell_of_two_levels():
    layout, codec = Layout.of({"a": (200_000,)}), EcsqCodec(bits=6)
    for centre in (0.5625, 0.71, 0.83, 0.999):
        for width in (2.0**-10, 2.0**-11):
            vector = centre + width * np.random.default_rng(1).uniform(-1, 1, 200_000)
            payload = encoded(codec, vector, layout)
            assert len(payload) <= codec.encoded_size_bound(layout)
            assert nmse(codec.decode(payload, layout), vector.astype(np.float32)) < 1e-4


def test_equal_values_take_their_signs_only():
    layout, codec = Layout.of({"a": (80_000,)}), EcsqCodec(bits=0.05)
    vector = np.where(np.arange(80_000) % 3, np.float32(-2), np.float32(2))
    payload = encoded(codec, vector, layout)
    assert len(payload) < 80_000 / 8 * 1.03 + 100
    np.testing.assert_allclose(codec.decode(payload, layout), vector, rtol=1e-3)


def test_feedback_is_required_and_nothing_is_random():
    codec = create("ecsq")
    assert (codec.feedback, codec.is_biased, codec.is_random) == ("required", True, False)


@pytest.mark.parametrize("bits", [0.049, 6.1, 0, -1, True, "1", None, float("nan"), float("inf")])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(CodecParameterError, match=r"bits: .*: must be a number, 0.05 to 6"):
        create("ecsq", {"bits": bits})
