"""A global model from the one before it and an encoded difference, the same bits at every end."""

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, check_finite, spans
from updates.codecs.base import Codec
from updates.layout import Layout


def apply_delta(model: F32, payload: Buffer, layout: Layout, codec: Codec) -> F32:
    """Return ``model`` plus the difference in a payload, added in float32 value by value.

    Nothing but IEEE additions: whoever has the same model and payload has the same result, also
    where the difference is zero (which makes -0.0 to 0.0).

    Args:
        model: Shape ``(layout.size,)``; left untouched.
        payload: What ``codec`` wrote.
        layout: Names and shapes behind both.
        codec: How the payload is read.

    Returns:
        A new vector of the same shape.

    Raises:
        PayloadError: The payload is not one that the codec writes for the layout, the model does
            not fit it, or a value of the sum is not finite.
    """
    layout.check_vector(model)
    moved = codec.decode(payload, layout)
    with np.errstate(over="ignore"):  # what is too large is refused below
        for span in spans(0, moved.size):
            moved[span] += model[span]
    check_finite(moved, "model")
    return moved
