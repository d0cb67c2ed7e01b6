"""Lazily aggregated quantized updates: what both ends hold, and when nothing need be sent.

A device and central hold the same vector Q, what central believes the device's update to be. The
device quantizes how its new update differs from Q, and both ends add that to Q with ``advance``. A
device whose update has changed too little to matter for the aggregate skips; central goes on with
the Q that it has, so an update is never counted twice and a skipped one never forgotten.

Source: Sun, Chen, Giannakis, Yang, "Communication-Efficient Distributed Learning via Lazily
Aggregated Quantized Gradients", NeurIPS 2019, https://arxiv.org/abs/1909.07588, equations 7 and 8,
and its code, https://github.com/sunjunaimer/LAQ. Two things are written otherwise, not changed:
the movement of the model, divided by the learning rate, is the norm of the aggregates (under plain
gradient descent they are the same), so central tells one number; and the weight of a device's
examples is in the rule instead of in Q, so that Q is an update like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from updates.arrays import F32, bounded_sum, check_finite, spans
from updates.codecs.base import Codec
from updates.layout import Layout

#: D, how many past aggregates the threshold looks at.
HISTORY = 10
#: The sum of xi_1 to xi_D.
SHARE = 0.8
#: t_bar: a device that has skipped more often in a row than this sends.
MAX_SKIPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class LazyMemory:
    """What a device holds between two of its rounds.

    Attributes:
        reference: Q, shape ``(n,)``; the same bits as central's.
        error: Squared norm of what the last quantization left out.
        clock: How often in a row the device has skipped.
    """

    reference: F32
    error: float = 0.0
    clock: int = 0

    @classmethod
    def first(cls, size: int) -> "LazyMemory":
        """Return the memory of a device that has sent nothing: Q = 0."""
        return cls(np.zeros(size, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class SkipTerms:
    """What the rule needs besides the device's own memory.

    Attributes:
        threshold: As ``threshold`` gives it, from central.
        weight: p_m, this device's share of all examples, 0 to 1.
    """

    threshold: float
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class LazyStep:
    """One round of one device.

    Attributes:
        payload: What to send; a few bytes for a skip.
        memory: What to hold if it is counted.
        has_skipped: Whether it is a skip.
    """

    payload: bytes
    memory: LazyMemory
    has_skipped: bool


def threshold(energies: Sequence[float], clients: int) -> float:
    """Return the movement below which a device's change does not matter.

    ``(1 / M**2) * sum xi_d * ||agg||**2`` with xi_d = 0.8 / min(k, D), as in the paper's code.

    Args:
        energies: Squared norms of the last aggregates, at most ``HISTORY``, not empty.
        clients: M, of how many devices the aggregate is the sum.
    """
    return SHARE / len(energies) * sum(energies) / clients**2


def may_skip(change: float, error: float, memory: LazyMemory, terms: SkipTerms) -> bool:
    """Tell whether an innovation need not be sent (equation 7a and 7b).

    Args:
        change: Squared norm of the quantized innovation.
        error: Squared norm of what its quantization leaves out.
        memory: The device's, before this round.
        terms: What central told, and the device's weight.
    """
    own = terms.weight**2
    allowed = terms.threshold + 3 * own * (error + memory.error)
    return own * change <= allowed and memory.clock <= MAX_SKIPS


def take_step(  # noqa: PLR0913 - what LAQ's step depends on
    update: F32,
    memory: LazyMemory,
    codec: Codec,
    layout: Layout,
    rng: np.random.Generator,
    *,
    terms: SkipTerms | None = None,
) -> LazyStep:
    """Quantize the innovation of one update, and decide whether to send it.

    Args:
        update: Shape ``(layout.size,)``; left untouched.
        memory: What the device holds; ``LazyMemory.first`` for a key frame.
        codec: Quantizes the innovation.
        layout: Names and shapes behind the vectors.
        rng: Source of the codec's noise.
        terms: None: skipping is not allowed.

    Raises:
        PayloadError: The update does not fit the layout.
        NonFiniteError: A value of it is NaN or infinite.
    """
    layout.check_vector(update)
    check_finite(update, "update")
    payload = codec.encode(bounded_sum(update, -memory.reference), layout, rng)
    innovation = codec.decode(payload, layout)
    reference = advance(memory.reference, innovation)
    error = energy(bounded_sum(update, -reference))
    if terms is not None and may_skip(energy(innovation), error, memory, terms):
        nothing = codec.encode(np.zeros_like(update), layout, rng)
        skipped = LazyMemory(memory.reference, memory.error, memory.clock + 1)
        return LazyStep(nothing, skipped, has_skipped=True)
    return LazyStep(payload, LazyMemory(reference, error), has_skipped=False)


def advance(reference: F32, innovation: F32) -> F32:
    """Return the next Q at either end, a new vector: both must call this and nothing else.

    Elementwise float32, so the bits are the same on every machine; kept within float32's range.
    """
    return bounded_sum(reference, innovation)


def energy(vector: F32) -> float:
    """Return the squared norm, summed in float64 in an order that does not depend on threads."""
    blocks = (vector[span].astype(np.float64) for span in spans(0, vector.size))
    return float(sum(np.square(block).sum() for block in blocks))
