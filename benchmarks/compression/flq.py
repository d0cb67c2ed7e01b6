"""FLQ's modes and its lazy rule, as its public code has them, beside LAQ.

Source: https://github.com/JasonNing96/kew_federated_learning, ``flq_fed_v3.py``, under gradient
descent. Nothing here is part of a fleet: the rule is wrong in two places, and this shows what
that costs. It tests the norm of the whole quantized gradient where LAQ tests that of its change,
and central forgets what a worker sent before in every round in which that worker skips.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.compression.methods import Innovations, Method
from benchmarks.compression.problems import WORKERS
from updates import lazy
from updates.arrays import F32
from updates.codecs import Codec, create
from updates.layout import Layout


@dataclass(frozen=True, slots=True)
class Mode:
    """What of FLQ is on.

    Attributes:
        codec: Quantizes.
        bits: Of one value.
        from_reference: Quantize the change since the last upload; ``bbit`` and ``bin``.
        keeps_error: Add what quantization left out to the next gradient; ``bbit`` and ``bin``.
        scale: Of the rule's threshold; 0, as shipped: every worker sends in every round.
        tests_change: The rule tests the norm of the change, as LAQ's does.
    """

    codec: Codec
    bits: int
    from_reference: bool = True
    keeps_error: bool = True
    scale: float = 0.0
    tests_change: bool = False


class Flq(Method):
    """All workers of a run."""

    def __init__(self, layout: Layout, mode: Mode) -> None:
        super().__init__(layout, mode.bits)
        self._mode = mode
        self._references = np.zeros((WORKERS, layout.size), np.float32)
        self._residuals = np.zeros((WORKERS, layout.size), np.float32)
        self._errors, self._energies = np.zeros(WORKERS), deque[float](maxlen=lazy.HISTORY)
        self._rng = np.random.default_rng(0)

    def aggregate(self, gradients: F32) -> F32:
        """Return the sum over the workers that send; the others are left out."""
        total = np.zeros(self.layout.size)
        for worker, gradient in enumerate(gradients):
            total += self._sent(worker, gradient)
        moved = total.astype(np.float32)
        self._energies.append(lazy.energy(moved))
        return moved

    def _sent(self, worker: int, gradient: F32) -> F32:
        mode, reference = self._mode, self._references[worker]
        wanted = gradient + self._residuals[worker] if mode.keeps_error else gradient
        base = reference if mode.from_reference else np.zeros_like(reference)
        payload = mode.codec.encode(wanted - base, self.layout, self._rng)
        quantized = base + mode.codec.decode(payload, self.layout)
        error = lazy.energy(wanted - quantized)
        tested = quantized - reference if mode.tests_change else quantized
        if lazy.energy(tested) < self._threshold(worker, error):
            self._residuals[worker] = wanted
            return np.zeros_like(quantized)
        self._references[worker], self._residuals[worker] = quantized, wanted - quantized
        self._errors[worker] = error
        self.uploads += 1
        self.payload_bytes += len(payload)
        return quantized

    def _threshold(self, worker: int, error: float) -> float:
        if not (self._mode.scale and self._energies):
            return 0.0
        # Weights 0.8 / d, the newest first, where LAQ has 0.8 / D.
        moved = sum(0.8 / (age + 1) * one for age, one in enumerate(reversed(self._energies)))
        own = 3 * (error + self._errors[worker])
        return self._mode.scale * (moved / WORKERS**2 + own)


def modes() -> Mapping[str, Callable[[Layout], Method]]:
    """Return LAQ and FLQ's variants by name."""
    laq, eight, four = create("laq", {"bits": 4}), create("symmetric"), _symmetric(4)
    made = {
        "FLQ laq8": Mode(eight, 8, from_reference=False, keeps_error=False),
        "FLQ bbit-8": Mode(eight, 8),
        "FLQ bbit-4": Mode(four, 4),
        "FLQ bin": Mode(create("bin"), 1),
        "FLQ bbit-4, its rule": Mode(four, 4, scale=1.0),
        "FLQ bbit-4, the change tested": Mode(four, 4, scale=1.0, tests_change=True),
    }
    found: dict[str, Callable[[Layout], Method]] = {
        "LAQ-4": lambda layout: Innovations(layout, laq, 4, skips=True)
    }
    for name, mode in made.items():
        found[name] = lambda layout, mode=mode: Flq(layout, mode)  # type: ignore[misc]
    return found


def _symmetric(bits: int) -> Codec:
    return create("symmetric", {"bits": bits})
