"""Golden vectors: bytes written once go on decoding to the same bits. ``make vectors`` writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from updates.codecs import create, names
from updates.layout import Layout

DIRECTORY = Path(__file__).parents[2] / "vectors" / "updates"


def load(codec_id):
    golden = json.loads((DIRECTORY / f"{codec_id}.json").read_text(encoding="ascii"))
    return create(codec_id, golden["params"]), Layout.of(golden["layout"]), golden


def test_every_codec_has_vectors_and_every_vector_a_codec():
    assert sorted(path.stem for path in DIRECTORY.glob("*.json")) == list(names())


@pytest.mark.parametrize("codec_id", names())
def test_golden_payloads_decode_to_the_same_bits(codec_id):
    codec, layout, golden = load(codec_id)
    assert golden["codec"] == codec.codec_id
    assert golden["layout_sha256"] == layout.digest
    assert len(golden["cases"]) >= 3
    for case in golden["cases"]:
        decoded = codec.decode(bytes.fromhex(case["payload"]), layout)
        assert decoded.astype("<f4").tobytes().hex() == case["decoded_f32_le"], case["input"]


@pytest.mark.parametrize("codec_id", [name for name in names() if not create(name).is_random])
def test_golden_inputs_encode_to_the_same_bytes(codec_id):
    codec, layout, golden = load(codec_id)
    for case in golden["cases"]:
        vector = np.frombuffer(bytes.fromhex(case["input_f32_le"]), dtype="<f4")
        payload = codec.encode(vector, layout, np.random.default_rng(golden["seed"]))
        assert payload.hex() == case["payload"], case["input"]
