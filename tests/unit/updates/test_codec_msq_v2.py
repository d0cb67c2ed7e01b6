"""MSQ with the step of least squares: what it leaves out, and that no other scale fits better."""

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_bodies import BAD_SCALES, body_of, check_body, round_trip, with_scale
from updates.codecs import create
from updates.codecs.msq_v2 import best_step
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"w": (200_000,), "x": (3,)})
RNG = np.random.default_rng(0)
GAUSS = RNG.standard_normal(LAYOUT.size, dtype=np.float32)
HEAVY = RNG.standard_t(3, LAYOUT.size).astype(np.float32)
every_width = pytest.mark.parametrize("bits", range(1, 9))


def left_share(vector, decoded):
    return np.square(vector - decoded).sum() / np.square(vector.astype(np.float64)).sum()


@pytest.mark.parametrize(("bits", "share"), [(1, 0.3634), (2, 0.1188), (3, 0.03744), (4, 0.01154)])
def test_a_gaussian_loses_what_the_best_equal_steps_lose(bits, share):
    decoded = round_trip(create("msq-v2", {"bits": bits}), GAUSS, LAYOUT)
    assert share * 0.98 < left_share(GAUSS, decoded) < share * 1.05


@every_width
@pytest.mark.parametrize("vector", [GAUSS, HEAVY, HEAVY**3], ids=["gauss", "t3", "cubed"])
def test_no_other_scale_of_the_same_codes_fits_better(bits, vector):
    decoded = round_trip(create("msq-v2", {"bits": bits}), vector, LAYOUT)[:200_000]
    along = float((vector[:200_000] * decoded).sum())
    assert along == pytest.approx(np.square(decoded).sum(), rel=1e-5)
    assert left_share(vector[:200_000], decoded) < 1


def test_more_starts_do_not_find_a_better_step():
    sample = RNG.standard_t(3, 5000)
    found = best_step(sample, 2)
    trials = np.linspace(0.2, 6, 400)
    losses = {}
    for step in [found, *trials]:
        levels = np.clip(np.floor(sample / step), -2, 1) + 0.5
        losses[step] = np.square(sample - levels * (sample @ levels) / (levels @ levels)).sum()
    assert losses[found] <= min(losses.values()) * 1.01


def test_one_bit_is_the_codec_bin():
    np.testing.assert_allclose(
        round_trip(create("msq-v2", {"bits": 1}), HEAVY, LAYOUT),
        round_trip(create("bin"), HEAVY, LAYOUT),
        rtol=1e-6,
    )


def test_a_sample_of_zeros_in_a_tensor_with_values_still_gives_a_step():
    layout = Layout.of({"w": (4 * 65_536,)})
    vector = np.zeros(layout.size, dtype=np.float32)
    vector[1] = 5
    decoded = round_trip(create("msq-v2"), vector, layout)
    assert np.isfinite(decoded).all()
    assert left_share(vector, decoded) <= 1


@pytest.mark.parametrize("scale", [*BAD_SCALES, 3e38])
def test_a_scale_that_could_not_have_been_sent_is_refused(scale):
    codec, layout = create("msq-v2"), Layout.of({"w": (9,)})
    body = with_scale(body_of(codec, range(9), layout), 0, scale)
    with pytest.raises(NonFiniteError, match="a scale is not finite, or not in 0 to"):
        check_body(codec, body, layout)


def test_lengths_are_checked():
    codec, layout = create("msq-v2"), Layout.of({"w": (9,)})
    with pytest.raises(PayloadError, match="body length in bytes is 6, expected 7"):
        check_body(codec, body_of(codec, range(9), layout)[:-1], layout)


@pytest.mark.parametrize("bits", [0, 9, True, 2.0, "2", None])
def test_a_width_out_of_range_is_refused(bits):
    with pytest.raises(CodecParameterError, match=r"bits: .* must be a whole number, 1 to 8"):
        create("msq-v2", {"bits": bits})
