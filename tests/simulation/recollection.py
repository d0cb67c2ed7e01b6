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
class Trained:
    """One update as its device made it."""

    sha256: str
    examples: int
    delta: np.ndarray
    is_poison: bool
    #: Of a task whose devices keep something from round to round.
    recollection: Recollection | None = None


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


def summands_of(
    number: int, updates: dict[str, Trained], kept: dict[str, Kept], *, is_restored: bool
) -> list[tuple[int, np.ndarray]]:
    """Return what a committed round must be the mean of, weighted; ``kept`` is brought up to it.

    Raises:
        ValueError: A device built on another round than it should, or holds something else.
    """
    found = []
    for device, one in sorted(updates.items()):
        counted = one.delta
        if one.recollection is not None:
            counted = one.recollection.decoded
            vector = _checked(device, one, kept.get(device), is_restored=is_restored)
            kept[device] = Kept(number, vector, one.examples)
        found.append((one.examples, counted))
    if any(one.recollection and one.recollection.kind == "lazy" for one in updates.values()):
        return [(one.examples, one.vector) for _, one in sorted(kept.items())]
    return found


def _checked(
    device: str, trained: Trained, before: Kept | None, *, is_restored: bool
) -> np.ndarray:
    """Return what a device must hold after a counted round."""
    one, delta = trained.recollection, trained.delta
    assert one is not None
    last = 0 if before is None else before.round
    if one.reference != last and not (is_restored and one.reference == 0):
        message = f"{device} builds on round {one.reference}, counted last was {last}"
        raise ValueError(message)
    held = before.vector if before is not None and one.reference else np.zeros_like(delta)
    if one.kind == "lazy":
        vector = _within(held + one.decoded)
    else:
        vector = _within(_within(delta + held) - one.decoded)
    if hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest() != one.held:
        message = f"{device} holds another vector than it should"
        raise ValueError(message)
    return vector


def _within(vector: np.ndarray) -> np.ndarray:
    return np.clip(vector, -_MAX, _MAX).astype(np.float32)
