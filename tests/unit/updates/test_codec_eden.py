"""EDEN: its error at every number of bits, both scales, the mean of spikes, hostile bodies."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from updates.codecs import create
from updates.codecs.eden import EdenCodec
from updates.codecs.eden_levels import LEVELS
from updates.codecs.header import HEADER_BYTES, pack
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

#: Distortion of the best quantizers of a Gaussian (Max 1960, table I).
DISTORTION = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009501, 5: 0.002505, 6: 0.000644}
LONG = Layout.of({"w": (5, 20_000)})


def of(name, size, seed=0):
    rng = np.random.default_rng(seed)
    drawn = {
        "normal": rng.standard_normal,
        "laplace": lambda count: rng.laplace(size=count),
        "student": lambda count: rng.standard_t(3, count),
    }
    return drawn[name](size).astype(np.float32)


def decoded(codec, vector, layout, seed=0):
    return codec.decode(codec.encode(vector, layout, np.random.default_rng(seed)), layout)


def nmse(result, vector):
    exact = vector.astype(np.float64)
    return ((result - exact) ** 2).sum() / (exact**2).sum()


@pytest.mark.parametrize("name", ["normal", "laplace", "student"])
@pytest.mark.parametrize("bits", list(DISTORTION))
def test_the_error_is_that_of_the_best_quantizer_of_a_gaussian(name, bits):
    vector, distortion = of(name, LONG.size), DISTORTION[bits]
    biased = nmse(decoded(EdenCodec(bits=bits, unbiased=False), vector, LONG), vector)
    assert biased == pytest.approx(distortion, rel=0.03)
    unbiased = nmse(decoded(EdenCodec(bits=bits), vector, LONG), vector)
    assert unbiased == pytest.approx(1 / (1 - distortion) - 1, rel=0.03)


@pytest.mark.parametrize("bits", list(DISTORTION))
def test_levels_are_the_means_of_their_cells(bits):
    levels = np.concatenate((-LEVELS[bits][::-1], LEVELS[bits])).astype(np.float64)
    grid = np.linspace(-9, 9, 1_800_001)
    weights = np.exp(-(grid**2) / 2)
    cell = np.searchsorted((levels[1:] + levels[:-1]) / 2, grid)
    means = np.bincount(cell, weights * grid) / np.bincount(cell, weights)
    np.testing.assert_allclose(levels, means, atol=1e-4)


@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=80)
def test_the_unbiased_scale_keeps_the_energy_along_the_update(size, bits, seed):
    layout, vector = Layout.of({"a": (size,)}), of("student", size, seed)
    result = decoded(EdenCodec(bits=bits), vector, layout, seed).astype(np.float64)
    if size % 64 == 0:  # a padded block has a part of its energy in the padding
        assert result @ vector == pytest.approx(
            float(vector.astype(np.float64) @ vector), rel=1e-4
        )


@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=80)
def test_the_projection_is_never_further_away_than_nothing(size, bits, seed):
    layout, vector = Layout.of({"a": (size,)}), of("student", size, seed)
    assert nmse(decoded(EdenCodec(bits=bits, unbiased=False), vector, layout, seed), vector) < 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_mean_is_right_even_where_one_value_towers(bits):
    layout, rng, draws = Layout.of({"a": (256,)}), np.random.default_rng(5), 1500
    vector = of("normal", 256) * np.float32(0.3)
    vector[17] = 10
    codec = EdenCodec(bits=bits)
    results = np.array(
        [codec.decode(codec.encode(vector, layout, rng), layout) for _ in range(draws)],
        dtype=np.float64,
    )
    standard_error = results.std(axis=0, ddof=1) / np.sqrt(draws)
    assert (np.abs(results.mean(axis=0) - vector) <= 5 * standard_error + 1e-4).all()


@pytest.mark.parametrize("bits", [1, 3])
def test_a_value_takes_its_bits_and_a_block_one_scale(bits):
    payload = EdenCodec(bits=bits).encode(of("normal", LONG.size), LONG, np.random.default_rng(0))
    assert len(payload) == EdenCodec(bits=bits).encoded_size_bound(LONG)
    assert bits < len(payload) * 8 / LONG.size < 1.006 * bits


@pytest.mark.parametrize("value", [np.finfo(np.float32).max, 1e30, 1e-30])
@pytest.mark.parametrize("unbiased", [True, False])
def test_magnitudes_of_all_sizes_keep_their_scale(value, unbiased):
    layout = Layout.of({"a": (64,)})
    vector = np.full(64, value, dtype=np.float32)
    result = decoded(EdenCodec(bits=4, unbiased=unbiased), vector, layout)
    assert np.isfinite(result).all()
    assert result.astype(np.float64).mean() == pytest.approx(float(value), rel=0.2)


def test_feedback_follows_the_scale():
    assert (EdenCodec().feedback, EdenCodec().is_biased) == ("forbidden", False)
    biased = EdenCodec(unbiased=False)
    assert (biased.feedback, biased.is_biased) == ("allowed", True)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"bits": 0}, "bits: 0: must be a whole number, 1 to 6"),
        ({"bits": 7}, "bits: 7"),
        ({"bits": 2.0}, "bits: 2.0"),
        ({"bits": True}, "bits: True"),
        ({"unbiased": 0}, "unbiased: 0: must be true or false"),
    ],
)
def test_bad_parameters_are_refused(params, text):
    with pytest.raises(CodecParameterError, match=text):
        create("eden", params)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    layout, codec = Layout.of({"a": (64,)}), EdenCodec()
    body = bytearray(
        codec.encode(of("normal", 64), layout, np.random.default_rng(0))[HEADER_BYTES:]
    )
    struct.pack_into("<f", body, 8, scale)
    with pytest.raises(NonFiniteError, match="scale of a block"):
        codec.check(pack(codec.number, 64, [body]), layout)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16))
def test_any_seed_and_codes_decode_below_the_largest_float32(seed, codes):
    layout, codec = Layout.of({"a": (64,)}), EdenCodec(bits=2)
    body = seed + struct.pack("<f", np.finfo(np.float32).max) + codes
    result = codec.decode(pack(codec.number, 64, [body]), layout)
    assert np.isfinite(result).all()
