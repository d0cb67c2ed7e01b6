"""What is particular to one codec, and the registry that finds them."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from schemas.errors import PayloadError
from updates.codecs import create, names
from updates.codecs.header import HEADER_BYTES, pack
from updates.codecs.registry import parameters
from updates.codecs.selection import largest_positions
from updates.codecs.topk import TopKCodec
from updates.errors import CodecParameterError, NonFiniteError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (6,), "b": (4,)})
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rng(seed=0):
    return np.random.default_rng(seed)


def body_of(codec, values, layout=LAYOUT):
    vector = np.array(values, dtype=np.float32)
    return bytearray(codec.encode(vector, layout, rng())[HEADER_BYTES:])


def test_the_registry_makes_every_codec_by_its_id():
    assert {"fp16", "int8", "raw-f32", "topk"} <= set(names())
    assert names() == tuple(sorted(names()))
    assert [create(name).codec_id for name in names()] == list(names())


def test_a_parameter_that_is_given_replaces_the_default():
    assert create("topk") == TopKCodec(fraction=0.01)
    assert create("topk", {"fraction": 1}) == TopKCodec(fraction=1)
    assert parameters(TopKCodec) == ("fraction",)


def test_an_unknown_codec_is_refused_with_the_known_ones():
    with pytest.raises(CodecParameterError, match=r"codec: 'zip': must be one of .*fp16, .*int8"):
        create("zip")


def test_an_unknown_parameter_is_refused_with_the_known_ones():
    with pytest.raises(CodecParameterError, match=r"bits: 4: not known, int8 takes no parameters"):
        create("int8", {"bits": 4})
    with pytest.raises(CodecParameterError, match="topk takes fraction") as caught:
        create("topk", {"k": "x" * 100})
    assert (caught.value.field, caught.value.value) == ("k", "x" * 100)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("value", [0, -0.1, 1.01, float("nan"), True, "0.1", None])
def test_topk_refuses_a_fraction_outside_its_range(value):
    with pytest.raises(CodecParameterError, match=r"fraction: .* above 0 and up to 1"):
        create("topk", {"fraction": value})


@given(hnp.arrays(np.float32, LAYOUT.size, elements=finite))
@settings(max_examples=100)
def test_raw_f32_gives_back_the_same_bits(vector):
    codec = create("raw-f32")
    assert codec.decode(codec.encode(vector, LAYOUT, rng()), LAYOUT).tobytes() == vector.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_raw_f32_refuses_received_values_that_are_not_finite(value):
    body = np.full(LAYOUT.size, value, dtype="<f4").tobytes()
    with pytest.raises(NonFiniteError, match="value 0"):
        create("raw-f32").check(pack(1, LAYOUT.size, [body]), LAYOUT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_fp16_refuses_received_values_that_are_not_finite(value):
    body = np.full(LAYOUT.size, value, dtype="<f2").tobytes()
    with pytest.raises(NonFiniteError, match="not finite"):
        create("fp16").check(pack(2, LAYOUT.size, [body]), LAYOUT)


def test_fp16_clips_what_a_half_cannot_hold():
    codec = create("fp16")
    payload = codec.encode(np.linspace(-1e6, 1e6, 10, dtype=np.float32), LAYOUT, rng())
    decoded = codec.decode(payload, LAYOUT)
    assert decoded.min() == -65504
    assert decoded.max() == 65504


def test_int8_is_unbiased_with_at_most_a_quarter_of_a_squared_step_of_variance():
    codec = create("int8")
    vector = np.array([1, -0.3, 0.011, -0.0123, 0, 2**-20, 254, 1.7, -100.5, -254], dtype="f4")
    steps = np.repeat(np.array([1 / 127, 2]), (6, 4))
    generator, draws = rng(3), 4000
    decoded = np.stack(
        [codec.decode(codec.encode(vector, LAYOUT, generator), LAYOUT) for _ in range(draws)]
    ).astype(np.float64)
    assert (np.abs(decoded.mean(axis=0) - vector) <= 5 * steps / 2 / np.sqrt(draws)).all()
    assert (decoded.var(axis=0) <= steps**2 / 4 * 1.1).all()


class FixedNoise:
    """Stands in for a generator: noise that the test chose."""

    def __init__(self, values):
        self.values = np.array(values, dtype=np.uint16)

    def integers(self, low, high, *, size, dtype):
        assert (low, high, dtype) == (0, 2**64, np.uint64)
        return np.resize(self.values, 4 * size).astype("<u2").view("<u8")


@pytest.mark.parametrize("value", [0.3, -0.3, 0.49999, 5e-6, -100.7, 0.0, 126.0])
def test_int8_rounds_up_for_exactly_the_nearest_share_of_all_noise(value):
    layout = Layout.of({"a": (65536,), "b": (65536,)})
    vector = np.full(2 * 65536, value, dtype=np.float32)
    vector[0] = vector[65536] = 127  # makes the scale 1; its own code is 127 for every noise
    codec, noise = create("int8"), FixedNoise(range(65536))
    codes = codec.decode(codec.encode(vector, layout, noise), layout)[1:65536]
    first = np.floor(np.float32(value) + 0.5 / 65536)
    expected = round(float(np.float32(value)) * 65536) - first
    assert codes.sum(dtype=np.float64) == pytest.approx(expected, abs=0.01)


@given(st.floats(2.0**-140, 2.0**120, width=32), st.sampled_from([0, 65535]))
@settings(max_examples=300)
def test_int8_gives_the_largest_magnitudes_their_own_sign_for_any_noise(value, noise):
    codec, vector = create("int8"), np.array([value, -value] * 5, dtype=np.float32)
    decoded = codec.decode(codec.encode(vector, LAYOUT, FixedNoise([noise])), LAYOUT)
    np.testing.assert_allclose(decoded, vector, rtol=1 / 126)


def test_int8_draws_anew_for_every_value():
    layout = Layout.of({"a": (20_000,)})
    vector = np.full(20_000, 0.5, dtype=np.float32)
    vector[0] = 127
    codes = np.frombuffer(body_of(create("int8"), vector, layout)[4:], dtype=np.int8)[1:]
    assert 0.48 < codes.mean() < 0.52
    assert abs(np.corrcoef(codes[:-1], codes[1:])[0, 1]) < 0.05


def test_int8_keeps_the_largest_of_each_tensor_up_to_the_rounding_of_its_scale():
    codec = create("int8")
    vector = np.array([1e-3, 0, 0, 0, 0, 0, 7e4, 0, 0, 0], dtype=np.float32)
    decoded = codec.decode(codec.encode(vector, LAYOUT, rng()), LAYOUT)
    np.testing.assert_allclose(decoded[[0, 6]], vector[[0, 6]], rtol=1 / 127)
    assert not np.delete(decoded, [0, 6]).any()


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, 3e38])
def test_int8_refuses_a_scale_that_could_not_have_been_sent(scale):
    body = body_of(create("int8"), range(10))
    body[4:8] = struct.pack("<f", scale)
    with pytest.raises(NonFiniteError, match="scale"):
        create("int8").check(pack(3, LAYOUT.size, [body]), LAYOUT)


def test_int8_names_both_lengths():
    with pytest.raises(PayloadError, match="body length in bytes is 17, expected 18"):
        create("int8").check(pack(3, LAYOUT.size, [bytes(17)]), LAYOUT)


@given(
    hnp.arrays(
        np.float32, st.integers(1, 60), elements=finite | st.sampled_from([0.0, 1.0, -1.0])
    ),
    st.floats(0.01, 1),
)
@settings(max_examples=150)
def test_topk_keeps_exactly_the_k_largest_and_of_equals_the_first(vector, share):
    count = max(1, int(share * vector.size))
    order = sorted(range(vector.size), key=lambda index: (-abs(float(vector[index])), index))
    assert largest_positions(vector, count).tolist() == sorted(order[:count])


def test_topk_decodes_to_the_kept_values_and_zero_elsewhere():
    layout = Layout.of({"w": (1000,)})
    vector = rng().standard_normal(1000, dtype=np.float32) * np.float32(1e-6)
    codec = create("topk", {"fraction": 0.1})
    decoded = codec.decode(codec.encode(vector, layout, rng()), layout)
    kept = np.argsort(-np.abs(vector))[:100]
    assert set(np.flatnonzero(decoded)) == set(kept)
    np.testing.assert_allclose(decoded[kept], vector[kept], rtol=2**-11)


def test_topk_at_one_percent_takes_a_quarter_of_a_bit_a_value():
    layout = Layout.of({"w": (200_000,)})
    vector = rng().standard_normal(200_000, dtype=np.float32)
    payload = create("topk").encode(vector, layout, rng())
    assert 24.0 < len(payload) * 8 / 2000 < 24.4


def test_topk_keeps_at_least_one_value_and_at_most_all():
    codec = create("topk", {"fraction": 1e-9})
    assert codec.kept(LAYOUT) == 1
    assert create("topk", {"fraction": 1.0}).kept(LAYOUT) == 10


def corrupt_topk(**changes):
    codec = TopKCodec(fraction=0.3)
    body = body_of(codec, [9, 8, 7, 1, 1, 1, 1, 1, 1, 1])
    fields = dict(zip(("count", "exponent", "parameter"), struct.unpack_from("<IhB", body)))  # noqa: B905
    struct.pack_into("<IhB", body, 0, *(fields | changes).values())
    return codec, body


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"count": 2}, "2 values kept, this codec keeps 3"),
        ({"count": 2**32 - 1}, "4294967295 values kept"),
        ({"exponent": 129}, "exponent 129"),
        ({"exponent": -149}, "exponent -149"),
        ({"parameter": 31}, "Rice parameter 31"),
        ({"parameter": 7}, "positions"),
    ],
)
def test_topk_refuses_a_head_that_could_not_have_been_sent(changes, text):
    codec, body = corrupt_topk(**changes)
    with pytest.raises(PayloadError, match=text):
        codec.check(pack(4, LAYOUT.size, [body]), LAYOUT)


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0x7800])
def test_topk_refuses_kept_values_that_are_not_finite_or_too_large(bits):
    codec, body = corrupt_topk()
    struct.pack_into("<H", body, 8, bits)
    with pytest.raises(PayloadError, match="kept value"):
        codec.check(pack(4, LAYOUT.size, [body]), LAYOUT)
