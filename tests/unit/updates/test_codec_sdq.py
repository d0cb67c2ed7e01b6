"""Sigma-Delta quantization: sums of errors stay small, for both orders."""

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_bodies import BAD_SCALES, body_of, check_body, round_trip, with_scale
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"w": (3 * 2048 + 100,)})
RNG = np.random.default_rng(0)
VECTORS = {
    "gauss": RNG.standard_normal(LAYOUT.size, dtype=np.float32),
    "at the maximum": RNG.choice(np.array([-1, 1], dtype=np.float32), LAYOUT.size),
    "constant": np.full(LAYOUT.size, 0.7, dtype=np.float32),
}
every_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
every_width = pytest.mark.parametrize("bits", range(1, 9))


def scaled_errors(vector, bits, order, bucket):
    """Return the errors in steps, one row a whole bucket."""
    decoded = round_trip(
        create("sdq", {"bits": bits, "order": order, "bucket": bucket}), vector, LAYOUT
    )
    weight = 1 if order == 1 else 4 / 3 if bits == 1 else 3
    rows = vector[: 3 * 2048].reshape(-1, bucket).astype(np.float64)
    steps = np.abs(rows).max(axis=1, keepdims=True) / (2 ** (bits - 1) - weight / 2)
    return (rows - decoded[: 3 * 2048].reshape(rows.shape)) / steps


@every_width
@every_vector
def test_order_1_keeps_every_sum_of_first_errors_within_half_a_step(vector, bits):
    errors = scaled_errors(vector, bits, 1, 512)
    assert np.abs(np.cumsum(errors, axis=1)).max() <= 0.5 + 1e-3
    assert np.abs(errors).max() <= 1 + 1e-4


@pytest.mark.parametrize("bits", range(2, 9))
@every_vector
def test_order_2_keeps_every_sum_of_sums_within_half_a_step(vector, bits):
    errors = scaled_errors(vector, bits, 2, 256)
    assert np.abs(np.cumsum(np.cumsum(errors, axis=1), axis=1)).max() <= 0.5 + 1e-2
    assert np.abs(errors).max() <= 2 + 1e-4


@every_vector
def test_order_2_with_one_bit_keeps_the_memory_of_its_own_filter_within_half_a_step(vector):
    errors = scaled_errors(vector, 1, 2, 256)
    memory = np.zeros((errors.shape[0], 256 + 7))
    for position in range(256):
        now = position + 7
        memory[:, now] = errors[:, position] + (7 * memory[:, now - 1] - memory[:, now - 7]) / 6
    assert np.abs(memory).max() <= 0.5 + 1e-2


def test_it_is_what_one_value_after_another_gives():
    vector = VECTORS["gauss"][:600]
    decoded = round_trip(create("sdq", {"bits": 3}), vector, Layout.of({"w": (600,)}))
    for start in (0, 512):
        part = vector[start : start + 512].astype(np.float64)
        step, memory = np.abs(part).max() / 3.5, 0.0
        for value, got in zip(part, decoded[start : start + 512], strict=True):
            level = np.floor(value / step + memory) + 0.5
            memory += value / step - level
            assert got == pytest.approx(level * step, rel=1e-4)


def test_with_one_scale_a_lane_is_512_values():
    errors = VECTORS["gauss"] - round_trip(create("sdq", {"bucket": 0}), VECTORS["gauss"], LAYOUT)
    step = np.abs(VECTORS["gauss"]).max() / 7.5
    lanes = np.cumsum(errors[: 3 * 2048].reshape(-1, 512) / step, axis=1)
    assert np.abs(lanes).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("bits", range(2, 9))
def test_where_feedback_is_allowed_nothing_leaves_more_than_itself(order, bits):
    for bucket in (8, 64, 512):
        codec = create("sdq", {"bits": bits, "order": order, "bucket": bucket})
        worst = np.zeros(LAYOUT.size, dtype=np.float32)
        worst[::bucket] = 1
        left = np.square(worst - round_trip(codec, worst, LAYOUT)).sum() / worst.sum()
        assert left < 1 or codec.feedback == "forbidden"
    assert create("sdq", {"bits": bits, "order": order, "bucket": 0}).feedback == "forbidden"


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("sdq")
    body = with_scale(body_of(codec, VECTORS["gauss"], LAYOUT), 3, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, LAYOUT)


def test_lengths_are_checked():
    body = body_of(create("sdq"), VECTORS["gauss"], LAYOUT)
    with pytest.raises(PayloadError, match="body length"):
        check_body(create("sdq"), body[:-1], LAYOUT)


@pytest.mark.parametrize(
    "params", [{"bits": 0}, {"bits": 9}, {"bucket": 7}, {"order": 0}, {"order": 3}, {"order": 1.0}]
)
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(CodecParameterError, match="must be"):
        create("sdq", params)
