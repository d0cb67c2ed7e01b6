"""One bit a value: the sign and the mean magnitude of its tensor."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from tests.support.codec_bodies import BAD_SCALES, body_of, check_body, round_trip, with_scale
from updates.codecs import create
from updates.errors import NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (7,), "b": (2, 3)})
vectors = hnp.arrays(np.float32, 13, elements=st.floats(-(2.0**60), 2.0**60, width=32))


@given(vector=vectors)
@settings(max_examples=100)
def test_each_tensor_leaves_out_its_energy_less_its_mean_magnitude_times_its_sum(vector):
    decoded = round_trip(create("bin"), vector, LAYOUT)
    for values in LAYOUT.slices().values():
        part = vector[values].astype(np.float64)
        energy, total = np.square(part).sum(), np.abs(part).sum()
        left = np.square(part - decoded[values]).sum()
        # A mean among the smallest float32 has few bits, or is 0.
        near = 1e-6 * energy + 1e-80
        assert left == pytest.approx(energy - total**2 / part.size, rel=1e-5, abs=near)


def test_a_gaussian_leaves_out_one_less_two_over_pi():
    layout = Layout.of({"w": (200_000,)})
    vector = np.random.default_rng(0).standard_normal(200_000, dtype=np.float32)
    left = np.square(vector - round_trip(create("bin"), vector, layout)).mean()
    assert left == pytest.approx(1 - 2 / np.pi, rel=0.01)


def test_wire_layout_is_means_then_signs_and_zero_is_plus():
    values = [1, -1, 1, -1, 1, -1, 0, 2, 2, 2, -2, -2, -2]
    body = body_of(create("bin"), values, LAYOUT)
    assert struct.unpack_from("<2f", body) == (pytest.approx(6 / 7), 2)
    assert bytes(body[8:]) == bytes([0b11010101, 0b00011])


def test_means_beyond_half_of_the_largest_float_are_clipped_to_it():
    largest = np.finfo(np.float32).max
    decoded = round_trip(create("bin"), np.full(13, -largest, dtype=np.float32), LAYOUT)
    np.testing.assert_allclose(decoded, -float(largest) / 2, rtol=1e-6)


@pytest.mark.parametrize("scale", BAD_SCALES)
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    body = with_scale(body_of(create("bin"), range(13), LAYOUT), 1, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(create("bin"), body, LAYOUT)


def test_lengths_and_padding_are_checked():
    body = body_of(create("bin"), range(13), LAYOUT)
    with pytest.raises(PayloadError, match="body length in bytes is 9, expected 10"):
        check_body(create("bin"), body[:-1], LAYOUT)
    body[-1] |= 0x80
    with pytest.raises(PayloadError, match="3 bits after the last code"):
        check_body(create("bin"), body, LAYOUT)
