"""Error feedback: what the codec left out of an update is added to the next one.

Sources: Seide, Fu, Droppo, Li, Yu, "1-Bit Stochastic Gradient Descent", Interspeech 2014;
Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", ICML 2019, https://arxiv.org/abs/1901.09847, algorithm 2.
"""

from dataclasses import dataclass

import numpy as np

from schemas.messages import Memory
from updates.arrays import F32, bounded_sum, check_finite
from updates.codecs.base import Codec
from updates.errors import CodecParameterError
from updates.layout import Layout
from updates.pipeline import clip_to_norm

#: A device that was counted in none of the last so many committed rounds begins anew: what it
#: left out belongs to a model of long ago.
REACH_ROUNDS = 100


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackStep:
    """One round of one device.

    Attributes:
        payload: What to send.
        left_out: What to hold if it is counted, shape ``(n,)``.
    """

    payload: bytes
    left_out: F32


def memory_of(codec: Codec, error_feedback: bool | None) -> Memory:  # noqa: FBT001 - a task's field
    """Return what devices keep from round to round for a codec.

    Args:
        codec: The task's.
        error_feedback: As the task asks; None: on where the codec requires it.

    Raises:
        CodecParameterError: It is asked for with a codec that forbids it.
    """
    if error_feedback and codec.feedback == "forbidden":
        reason = "its error may exceed the update, or it is unbiased and needs none"
        if codec.needs_reference:
            reason = "its reference is a memory already"
        raise CodecParameterError(
            field="error_feedback",
            value=error_feedback,
            limit=f"not with codec {codec.codec_id}: {reason}",
        )
    if codec.needs_reference:
        return "lazy"
    is_on = codec.feedback == "required" if error_feedback is None else error_feedback
    return "feedback" if is_on else "none"


def take_step(  # noqa: PLR0913 - an update, and all that is done to it
    update: F32,
    left_out: F32,
    codec: Codec,
    layout: Layout,
    rng: np.random.Generator,
    *,
    clip_norm: float | None = None,
) -> FeedbackStep:
    """Encode an update with what was left out before, and tell what is left out now.

    What clipping takes away is not kept: fed back it would grow without bound.

    Args:
        update: Shape ``(layout.size,)``; left untouched.
        left_out: By the update before; zeros for the first one.
        codec: How to encode.
        layout: Names and shapes behind the vectors.
        rng: Source of the codec's noise.
        clip_norm: Largest Euclidean norm of what is encoded; None: any.

    Raises:
        NonFiniteError: A value is NaN or infinite.
        PayloadError: The update does not fit the layout.
        ValueError: ``clip_norm`` is not finite and positive.
    """
    layout.check_vector(update)
    check_finite(update, "update")
    whole = bounded_sum(update, left_out)
    if clip_norm is not None:
        whole = clip_to_norm(whole, clip_norm)
    payload = codec.encode(whole, layout, rng)
    return FeedbackStep(payload, remainder(whole, codec.decode(payload, layout)))


def remainder(whole: F32, decoded: F32) -> F32:
    """Return what is left out, elementwise in float32: the same bits on every machine."""
    return bounded_sum(whole, -decoded)
