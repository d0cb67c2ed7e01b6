"""Payloads of many lanes, blocks and positions never change: the golden vectors are too short."""

import hashlib

import numpy as np
import pytest

from updates.codecs import create
from updates.codecs.public_random import words
from updates.layout import Layout

LAYOUT = Layout.of({"a": (100, 300), "b": (3, 5, 41), "c": (700,)})

#: SHA-256 of a payload and of what it decodes to, as float32 LE; a change is a new wire format.
DIGESTS = {
    "ecsq": ("ecsq", {}, ("7c88b5b1f3321c7e", "f0ffb42da39479c4")),
    "ecsq low": ("ecsq", {"bits": 0.1}, ("6d6583a5df1f1563", "9c10f74877301403")),
    "ecsq high": ("ecsq", {"bits": 5}, ("e39ad860f29f1263", "745c71c859894174")),
    "eden": ("eden", {"bits": 2, "unbiased": False}, ("fa21589a0efc4e5c", "2d8f112f58a854f4")),
    "stc": ("stc", {"fraction": 0.01}, ("7bffc1664e29dffa", "8a11748bd05326d5")),
    "randk": ("randk", {"unbiased": True}, ("afd4f1fb5539608b", "1a165fb2eb6909c5")),
    "dropout": ("dropout", {}, ("43e2ac1e4e6c9722", "5d02c5559edc8186")),
    "topk": ("topk", {}, ("15a1ec48aa974ea8", "89cb4a012f45dd14")),
}


class FixedSeed:
    """Stands in for a generator: a public seed that the test chose."""

    def integers(self, low, high, *, dtype):
        assert (low, high, dtype) == (0, 1 << 64, np.uint64)
        return np.uint64(20261126)


def update():
    """Return a heavy-tailed vector made of whole numbers, the same with every numpy."""
    one = (words(1, 0, LAYOUT.size) >> np.uint64(44)).astype(np.float32) - 524288
    two = (words(2, 0, LAYOUT.size) >> np.uint64(59)).astype(np.float32)
    return one * two * two * two / 2**30


@pytest.mark.parametrize("name", list(DIGESTS))
def test_a_long_payload_and_what_it_decodes_to_never_change(name):
    codec_id, params, expected = DIGESTS[name]
    codec = create(codec_id, params)
    payload = codec.encode(update(), LAYOUT, FixedSeed())
    decoded = codec.decode(payload, LAYOUT).astype("<f4").tobytes()
    digests = tuple(hashlib.sha256(octets).hexdigest()[:16] for octets in (payload, decoded))
    assert digests == expected
