"""Golden vectors: bytes written once go on decoding to the same bits. ``make vectors`` writes."""

import json

import numpy as np
import pytest

from tests.support.codec_variants import golden_files
from updates.codecs import create, names
from updates.layout import Layout

FILES = golden_files()
every_variant = pytest.mark.parametrize("name", list(FILES))


def load(name):
    golden = json.loads(FILES[name].read_text(encoding="ascii"))
    return create(golden["codec"], golden["params"]), Layout.of(golden["layout"]), golden


def test_every_codec_has_vectors_and_every_vector_a_codec():
    assert sorted({name.partition(".")[0] for name in FILES}) == list(names())


@every_variant
def test_golden_payloads_decode_to_the_same_bits(name):
    codec, layout, golden = load(name)
    assert golden["codec"] == codec.codec_id == name.partition(".")[0]
    assert golden["layout_sha256"] == layout.digest
    assert len(golden["cases"]) >= 3
    for case in golden["cases"]:
        decoded = codec.decode(bytes.fromhex(case["payload"]), layout)
        assert decoded.astype("<f4").tobytes().hex() == case["decoded_f32_le"], case["input"]


@every_variant
def test_golden_inputs_encode_to_the_same_bytes_where_nothing_is_random(name):
    codec, layout, golden = load(name)
    for case in golden["cases"]:
        vector = np.frombuffer(bytes.fromhex(case["input_f32_le"]), dtype="<f4")
        payload = codec.encode(vector, layout, np.random.default_rng(golden["seed"]))
        assert (payload.hex() == case["payload"]) or codec.is_random, case["input"]
