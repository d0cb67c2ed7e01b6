"""From a trained model's delta to bytes, and the gate that central puts before accepting them."""

import math

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, check_finite, spans
from updates.codecs.base import Codec
from updates.layout import Layout

#: Pulls a clipped vector this much inwards, so that rounding to float32 cannot lift its norm.
_ROUNDING_MARGIN = 1 - 2.0**-23


def l2_norm(vector: F32) -> float:
    """Return the Euclidean norm, summed in float64; infinite or NaN if a value is."""
    total = 0.0
    for span in spans(0, vector.size):
        block = vector[span].astype(np.float64)
        total += float(np.dot(block, block))
    return math.sqrt(total)


def clip_to_norm(vector: F32, max_norm: float) -> F32:
    """Return the vector, scaled down if its Euclidean norm is above ``max_norm``.

    The bound holds for the float32 result, so it can serve as the sensitivity of a mechanism.
    Source: McMahan, Ramage, Talwar, Zhang, "Learning Differentially Private Recurrent Language
    Models", ICLR 2018, https://arxiv.org/abs/1710.06963, flat clipping.

    Args:
        vector: Shape ``(n,)``; left untouched, and returned itself if nothing is to be done.
        max_norm: Finite and positive.

    Raises:
        NonFiniteError: A value is NaN or infinite.
        ValueError: ``max_norm`` is not finite and positive.
    """
    if not (math.isfinite(max_norm) and max_norm > 0):
        message = f"max_norm: {max_norm}, it must be finite and above 0"
        raise ValueError(message)
    check_finite(vector, "update")
    norm = l2_norm(vector)
    if norm <= max_norm:
        return vector
    factor = max_norm / norm * _ROUNDING_MARGIN
    clipped = np.empty_like(vector)
    for span in spans(0, vector.size):
        clipped[span] = vector[span].astype(np.float64) * factor
    return clipped


def encode_update(
    delta: F32,
    layout: Layout,
    codec: Codec,
    rng: np.random.Generator,
    clip_norm: float | None = None,
) -> bytes:
    """Return the payload of one update: clipped, then encoded.

    Args:
        delta: New parameters minus the global ones, float32 of shape ``(layout.size,)``.
        layout: Names and shapes behind the vector.
        codec: How to encode it.
        rng: Source of the rounding noise; the same state gives the same bytes.
        clip_norm: Largest Euclidean norm, before encoding; None leaves the update as it is.

    Raises:
        NonFiniteError: A value is NaN or infinite; its ``code`` is ``E_NONFINITE``.
        PayloadError: The vector does not fit the layout.
        ValueError: ``clip_norm`` is not finite and positive.
    """
    layout.check_vector(delta)
    if clip_norm is not None:
        delta = clip_to_norm(delta, clip_norm)
    return codec.encode(delta, layout, rng)


def check_update(payload: Buffer, layout: Layout, codec: Codec) -> None:
    """Refuse a payload that could not be added to an aggregate; keeps nothing.

    Every length, the checksum and every value are looked at: what passes here cannot fail when
    the round closes.

    Raises:
        PayloadError: The payload is not one that the codec writes for the layout.
    """
    codec.check(payload, layout)
