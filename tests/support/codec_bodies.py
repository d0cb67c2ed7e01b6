"""Bodies of encoded updates, to look at, to spoil and to give back to their codec."""

import struct

import numpy as np

from updates.codecs.header import HEADER_BYTES, pack

#: Scales that no sender writes, whatever the codec.
BAD_SCALES = (float("nan"), float("inf"), -1.0, -1e-45)


def body_of(codec, values, layout, seed=0):
    """Return the body of an encoded vector, without the header."""
    vector = np.array(values, dtype=np.float32)
    return bytearray(codec.encode(vector, layout, np.random.default_rng(seed))[HEADER_BYTES:])


def check_body(codec, body, layout):
    """Let the codec check a body under a header that holds."""
    codec.check(pack(codec.number, layout.size, [bytes(body)]), layout)


def decoded_body(codec, body, layout):
    """Return what a body decodes to under a header that holds."""
    return codec.decode(pack(codec.number, layout.size, [bytes(body)]), layout)


def round_trip(codec, vector, layout, seed=0):
    """Return what the codec makes of a vector, as float64."""
    payload = codec.encode(vector, layout, np.random.default_rng(seed))
    return codec.decode(payload, layout).astype(np.float64)


def draws_of(codec, vector, layout, count, seed=0):
    """Return what the codec makes of a vector each time, float64 of shape ``(count, n)``."""
    rng = np.random.default_rng(seed)
    return np.array(
        [codec.decode(codec.encode(vector, layout, rng), layout) for _ in range(count)],
        dtype=np.float64,
    )


def with_scale(body, group, scale):
    """Return the body with another float32 in place of the scale of one group."""
    spoilt = bytearray(body)
    struct.pack_into("<f", spoilt, 4 * group, scale)
    return spoilt
