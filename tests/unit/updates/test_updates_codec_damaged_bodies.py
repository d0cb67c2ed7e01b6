"""A good body that is changed a little, under a good checksum: whoever sends it may mean harm.

Random bytes hardly ever get past the first length of a body that has tables and codes; these do.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import WireError
from tests.support.codec_variants import variants
from updates.codecs.header import HEADER_BYTES, pack
from updates.layout import Layout

LAYOUT = Layout.of({"a": (40, 7), "b": (90,), "c": ()})
VARIANTS = variants()
#: The beginning, where heads and scales are, as often as all the rest.
PLACES = st.integers(0, 24) | st.integers(0, 1 << 16)
CHANGES = st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=4)


def body_of(codec):
    vector = np.random.default_rng(3).standard_t(2, LAYOUT.size).astype(np.float32)
    return codec.encode(vector, LAYOUT, np.random.default_rng(0))[HEADER_BYTES:]


BODIES = {name: body_of(codec) for name, codec in VARIANTS.items()}


@pytest.mark.parametrize("name", list(VARIANTS))
@given(changes=CHANGES, cut=st.integers(0, 3))
@settings(max_examples=25)
def test_a_changed_body_gives_finite_values_or_a_wire_error(name, changes, cut):
    codec, body = VARIANTS[name], bytearray(BODIES[name])
    for place, value in changes:
        body[place % len(body)] = value
    payload = pack(codec.number, LAYOUT.size, [bytes(body[: len(body) - cut])])
    try:
        codec.check(payload, LAYOUT)
    except WireError:
        with pytest.raises(WireError):
            codec.decode(payload, LAYOUT)
    else:
        decoded = codec.decode(payload, LAYOUT)
        assert (decoded.dtype, decoded.shape) == (np.float32, (LAYOUT.size,))
        assert np.isfinite(decoded).all()
