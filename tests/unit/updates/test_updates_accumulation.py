"""Sums of many updates, and compiled loops: the bits are those of one update after the other."""

import importlib.util

import numpy as np
import pytest

from schemas.errors import PayloadError
from tests.support.codec_variants import variants
from updates import kernels
from updates.accumulation import AT_ONCE, AT_ONCE_BYTES, Encoded, add_all
from updates.arrays import BLOCK_VALUES, spans
from updates.codecs import create
from updates.layout import Layout

#: Tensors that begin and end within bytes and blocks, large and small.
LAYOUT = Layout.of(
    {"a": (5,), "b": (BLOCK_VALUES - 101,), "c": (3, 9001), "d": (), "e": (70_003,)}
)
SMALL = Layout.of({"a": (5,), "b": (3, 4), "c": ()})
WEIGHTS = (3.0, 0.1, 1e6, 7.25)

VARIANTS = variants()
every_codec = pytest.mark.parametrize("codec", list(VARIANTS.values()), ids=list(VARIANTS))


def updates_of(codec, layout=LAYOUT, weights=WEIGHTS):
    rng = np.random.default_rng(3)
    return [
        Encoded(
            codec,
            codec.encode(rng.standard_t(3, layout.size).astype(np.float32), layout, rng),
            weight,
        )
        for weight in weights
    ]


def by_definition(updates, layout=LAYOUT):
    total = np.linspace(-1, 1, layout.size)
    for one in updates:
        total += one.weight * one.codec.decode(one.payload, layout).astype(np.float64)
    return total


def summed(updates, layout=LAYOUT, loops=None):
    total = np.linspace(-1, 1, layout.size)
    add_all(total, iter(updates), layout, loops)
    return total


@pytest.fixture(scope="module", name="loops")
def _loops():
    found = kernels.load()
    assert found is not None, "the extra 'fast' is part of 'dev': numba is missing"
    return found


@every_codec
def test_a_sum_of_many_has_the_bits_of_one_after_the_other(codec):
    updates = updates_of(codec)
    assert summed(updates).tobytes() == by_definition(updates).tobytes()


@every_codec
def test_compiled_loops_give_the_bits_of_numpy(codec, loops):
    updates = updates_of(codec)
    assert summed(updates, loops=loops).tobytes() == by_definition(updates).tobytes()


@every_codec
def test_extreme_values_give_the_same_bits_compiled(codec, loops):
    rng = np.random.default_rng(4)
    for scale in (1e-45, 1e-39, 3e38):
        vector = np.clip(rng.uniform(-1, 1, SMALL.size) * scale, -3.4e38, 3.4e38).astype(
            np.float32
        )
        updates = [Encoded(codec, codec.encode(vector, SMALL, rng), weight) for weight in WEIGHTS]
        expected = by_definition(updates, SMALL).tobytes()
        assert summed(updates, SMALL).tobytes() == expected
        assert summed(updates, SMALL, loops).tobytes() == expected


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("codec_id", ["stocq", "msq"])
def test_every_width_gives_the_same_bits_compiled(codec_id, bits, loops):
    for bucket in (0, 64):
        updates = updates_of(create(codec_id, {"bits": bits, "bucket": bucket}))
        expected = by_definition(updates).tobytes()
        assert summed(updates).tobytes() == expected
        assert summed(updates, loops=loops).tobytes() == expected


def test_codecs_may_differ_and_keep_their_order():
    names = (
        "int8",
        "topk",
        "symmetric",
        "bin",
        "raw-f32",
        "ecsq",
        "randk",
        "bf16",
        "fp16",
        "uniform",
    )
    mixed = [
        updates_of(create(name), weights=(weight,))[0]
        for name, weight in zip(names * 2, range(1, 21), strict=True)
    ]
    assert summed(mixed).tobytes() == by_definition(mixed).tobytes()


def test_codecs_that_go_in_step_have_the_blocks_of_the_sum():
    in_step = [codec for codec in VARIANTS.values() if codec.in_step]
    assert {codec.codec_id for codec in in_step} >= {"int8", "symmetric", "bin", "raw-f32"}
    for codec in in_step:
        (one,) = updates_of(codec, weights=(1.0,))
        blocks = [where for where, _ in codec._blocks(one.payload, LAYOUT)]
        assert blocks == list(spans(0, LAYOUT.size))


@pytest.mark.parametrize(("codec_id", "most"), [("int8", AT_ONCE), ("topk", 1)])
def test_few_payloads_are_held_at_a_time(codec_id, most):
    codec = create(codec_id)
    (given,) = updates_of(codec, SMALL, weights=(1.0,))
    held = most_held = 0

    class Payload(bytearray):
        def __init__(self, octets):
            nonlocal held, most_held
            super().__init__(octets)
            held += 1
            most_held = max(held, most_held)

        def __del__(self):
            nonlocal held
            held -= 1

    def load():
        for _ in range(5 * AT_ONCE):
            yield Encoded(codec, Payload(given.payload), 1.0)

    add_all(np.zeros(SMALL.size), load(), SMALL)
    assert most <= most_held <= most + 1
    assert AT_ONCE_BYTES <= 1 << 26


def test_a_refused_payload_among_others_is_told():
    updates = updates_of(create("int8"), SMALL)
    updates[2] = Encoded(updates[2].codec, updates[2].payload[:-1], 1.0)
    with pytest.raises(PayloadError, match="CRC-32"):
        summed(updates, SMALL)


def test_without_numba_there_are_no_loops(monkeypatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    kernels.load.cache_clear()
    try:
        assert kernels.load() is None
    finally:
        kernels.load.cache_clear()
    assert importlib.util.find_spec("numba") is not None
