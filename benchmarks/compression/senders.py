"""The end that encodes, with the memory that its codec has.

With error feedback it sends ``C(v)``, ``v = update + e``, and keeps ``e = v - C(v)`` (Seide et
al., INTERSPEECH 2014; Karimireddy et al., ICML 2019, https://arxiv.org/abs/1901.09847). With a
reference it sends innovations, or skips (``updates.lazy``).
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from updates import lazy
from updates.arrays import F32
from updates.codecs import Codec, create
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class Sent:
    """One vector, sent.

    Attributes:
        wire_bytes: Of the payload that travels.
        codec: Decodes ``payload``.
        payload: What central adds up: the payload that travelled, or what it holds after it.
    """

    wire_bytes: int
    codec: Codec
    payload: bytes


class Sender(Protocol):
    """One end."""

    def send(self, vector: F32, rng: np.random.Generator) -> Sent:
        """Encode one vector of shape ``(layout.size,)``."""


class Energies:
    """What central knows of the last aggregates, for the lazy rule; one for all devices."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._past: deque[float] = deque(maxlen=lazy.HISTORY)

    def note(self, moved: F32) -> None:
        """Add the change of the model in one round."""
        self._past.append(lazy.energy(moved))

    def terms(self) -> lazy.SkipTerms | None:
        """Return the rule's terms for devices of equal weight; None before the first round."""
        if not self._past:
            return None
        threshold = lazy.threshold(tuple(self._past), self._devices)
        return lazy.SkipTerms(threshold, 1 / self._devices)


class Feeding:
    """Keeps what the codec left out, where it must."""

    def __init__(self, codec: Codec, layout: Layout) -> None:
        self.codec, self._layout = codec, layout
        self.error = np.zeros(layout.size, np.float32) if keeps_an_error(codec) else None

    def send(self, vector: F32, rng: np.random.Generator) -> Sent:
        """Encode a vector and what was left out before."""
        wanted = vector if self.error is None else vector + self.error
        payload = self.codec.encode(wanted, self._layout, rng)
        if self.error is not None:
            self.error = wanted - self.codec.decode(payload, self._layout)
        return Sent(len(payload), self.codec, payload)


class Lazy:
    """Sends innovations, or skips; central goes on with what it holds."""

    def __init__(self, codec: Codec, layout: Layout, energies: Energies) -> None:
        self._codec, self._layout, self._energies = codec, layout, energies
        self._memory, self._raw = lazy.LazyMemory.first(layout.size), create("raw-f32")

    def send(self, vector: F32, rng: np.random.Generator) -> Sent:
        """Encode how a vector differs from the reference."""
        terms = self._energies.terms() if getattr(self._codec, "skips", False) else None
        step = lazy.take_step(vector, self._memory, self._codec, self._layout, rng, terms=terms)
        self._memory = step.memory
        held = self._raw.encode(step.memory.reference, self._layout, rng)
        return Sent(len(step.payload), self._raw, held)


def keeps_an_error(codec: Codec) -> bool:
    """Tell whether a sender keeps what the codec left out: where it must, as tasks do."""
    return codec.feedback == "required"


def sender(codec: Codec, layout: Layout, energies: Energies) -> Sender:
    """Return the sender that a codec needs."""
    if codec.needs_reference:
        return Lazy(codec, layout, energies)
    return Feeding(codec, layout)
