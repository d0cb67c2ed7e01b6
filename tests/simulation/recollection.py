"""What devices must hold after each counted round, computed apart from the product."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agent.service.ports import EncodedUpdate, Work
from updates.codecs import create

if TYPE_CHECKING:
    from updates.layout import Layout

_MAX = np.finfo(np.float32).max


@dataclass(frozen=True, slots=True)
class Recollection:
    """One update of a task whose devices keep something.

    Attributes:
        kind: ``feedback`` or ``lazy``.
        decoded: What central reads out of the update.
        reference: The round that it builds on; 0: none.
        held: SHA-256 of what the device keeps if it is counted.
    """

    kind: str
    decoded: np.ndarray
    reference: int
    held: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What a device holds once a round is counted."""

    round: int
    vector: np.ndarray
    examples: int


def recollection_of(layout: "Layout", work: Work, update: EncodedUpdate) -> Recollection | None:
    """Return what is to be remembered of an update; None: its task keeps nothing."""
    if work.plan.memory == "none" or update.memory is None:
        return None
    data = update.tail if update.file is None else update.file.read_bytes()
    codec = create(work.plan.codec, work.plan.codec_params)
    decoded = codec.decode(data, layout)
    return Recollection(work.plan.memory, decoded, update.reference, update.memory.sha256)


def after(one: Recollection, before: Kept | None, delta: np.ndarray) -> np.ndarray:
    """Return what a device must hold after a counted round."""
    held = np.zeros_like(delta) if before is None else before.vector
    if one.kind == "lazy":
        return _within(held + one.decoded)
    return _within(_within(delta + held) - one.decoded)


def digest(vector: np.ndarray) -> str:
    """Return the digest under which a device keeps a vector."""
    return hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()


def _within(vector: np.ndarray) -> np.ndarray:
    return np.clip(vector, -_MAX, _MAX).astype(np.float32)
