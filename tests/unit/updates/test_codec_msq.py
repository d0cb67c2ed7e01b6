"""MSQ: the nearest of levels without zero, and when its error is less than the update."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from tests.support.codec_bodies import BAD_SCALES, body_of, check_body, round_trip, with_scale
from updates.codecs import create
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (20,), "b": (4,)})
every_width = pytest.mark.parametrize("bits", range(1, 9))
vectors = hnp.arrays(np.float32, 24, elements=st.floats(-(2.0**100), 2.0**100, width=32))


@every_width
@given(vector=vectors)
@settings(max_examples=40)
def test_the_error_is_at_most_half_of_a_step_of_the_bucket(bits, vector):
    decoded = round_trip(create("msq", {"bits": bits, "bucket": 8}), vector, LAYOUT)
    peaks = np.abs(vector.reshape(3, 8)).max(axis=1).astype(np.float64)
    step = np.repeat(2 * peaks / (2**bits - 1), 8)
    assert (np.abs(decoded - vector) <= step / 2 * (1 + 1e-4) + 2e-45).all()


@pytest.mark.parametrize(("bits", "bucket"), [(2, 8), (3, 32), (4, 128), (5, 512), (8, 32768)])
def test_where_feedback_is_allowed_the_worst_update_leaves_less_than_itself(bits, bucket):
    codec = create("msq", {"bits": bits, "bucket": bucket})
    assert codec.feedback == "allowed"
    worst = np.zeros(bucket, dtype=np.float32)
    worst[bucket // 2] = 1
    left = worst - round_trip(codec, worst, Layout.of({"w": (bucket,)}))
    bound = (bucket - 1) / (2**bits - 1) ** 2
    assert np.square(left).sum() <= bound * (1 + 1e-4) < 1


@pytest.mark.parametrize(("bits", "bucket"), [(2, 16), (3, 64), (4, 256), (7, 32768)])
def test_where_it_is_forbidden_some_update_leaves_more_than_itself(bits, bucket):
    codec = create("msq", {"bits": bits, "bucket": bucket})
    assert codec.feedback == "forbidden"
    worst = np.zeros(bucket, dtype=np.float32)
    worst[0] = 1
    left = worst - round_trip(codec, worst, Layout.of({"w": (bucket,)}))
    assert np.square(left).sum() > 1


def test_one_scale_for_all_forbids_feedback_and_zero_is_no_level():
    codec = create("msq", {"bits": 2, "bucket": 0})
    assert codec.feedback == "forbidden"
    decoded = round_trip(codec, np.array([3, 0, -0.5, -3] * 6, dtype=np.float32), LAYOUT)
    assert decoded[:4].tolist() == [3, 1, -1, -3]


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec = create("msq")
    body = with_scale(body_of(codec, range(24), LAYOUT), 0, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, LAYOUT)


def test_lengths_and_padding_are_checked():
    codec = create("msq", {"bits": 3, "bucket": 0})
    layout = Layout.of({"w": (9,)})
    body = body_of(codec, range(9), layout)
    with pytest.raises(PayloadError, match="body length in bytes is 7, expected 8"):
        check_body(codec, body[:-1], layout)
    body[-1] |= 8
    with pytest.raises(PayloadError, match="5 bits after the last code"):
        check_body(codec, body, layout)


@pytest.mark.parametrize("params", [{"bits": 0}, {"bits": 9}, {"bits": "2"}, {"bucket": 12}])
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(CodecParameterError, match="must be"):
        create("msq", params)
