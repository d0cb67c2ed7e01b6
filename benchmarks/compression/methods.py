"""Ways to bring M gradients to central, with what each sends counted.

LAQ is the code that a fleet runs: ``updates.lazy`` and the codec ``laq``. LAG is the same rule
with exact innovations (Chen, Giannakis, Sun, Yin, NeurIPS 2018, https://arxiv.org/abs/1805.09965),
QGD the same quantizer without the rule.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.compression.problems import WORKERS
from updates import lazy
from updates.arrays import F32
from updates.codecs import Codec, create
from updates.codecs.header import HEADER_BYTES
from updates.layout import Layout

_FLOAT_BITS = 32
#: What the codec ``laq`` sends for a skip: a header and a flag.
_SKIP_BYTES = HEADER_BYTES + 1


class Method(ABC):
    """One way, over a whole run.

    Attributes:
        uploads: Gradients or innovations sent so far.
        payload_bytes: Of what was sent, with the codec's header, skips too.
        bits: Of one value.
    """

    def __init__(self, layout: Layout, bits: int) -> None:
        self.layout, self.bits = layout, bits
        self.uploads = self.payload_bytes = 0

    @abstractmethod
    def aggregate(self, gradients: F32) -> F32:
        """Return the sum over the workers as central sees it.

        Args:
            gradients: ``(M, p)``.
        """

    @property
    def value_bits(self) -> int:
        """``bits * p * uploads``, as the paper counts them."""
        return self.bits * self.layout.size * self.uploads


class GradientDescent(Method):
    """Every worker sends its gradient as it is."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, _FLOAT_BITS)
        zeros = np.zeros(layout.size, np.float32)
        self._bytes = len(create("raw-f32").encode(zeros, layout, np.random.default_rng(0)))

    def aggregate(self, gradients: F32) -> F32:
        """Return the sum."""
        self.uploads += len(gradients)
        self.payload_bytes += len(gradients) * self._bytes
        return gradients.sum(0)


class Innovations(Method):
    """Every worker sends how its gradient differs from the one it sent last, or skips."""

    def __init__(self, layout: Layout, codec: Codec, bits: int, *, skips: bool) -> None:
        super().__init__(layout, bits)
        self._codec, self._skips = codec, skips
        self._memories = [lazy.LazyMemory.first(layout.size) for _ in range(WORKERS)]
        self._energies: deque[float] = deque(maxlen=lazy.HISTORY)
        self._rng = np.random.default_rng(0)

    def aggregate(self, gradients: F32) -> F32:
        """Return the sum of what central holds of all workers."""
        terms = None
        if self._skips and self._energies:
            terms = lazy.SkipTerms(lazy.threshold(tuple(self._energies), len(gradients)), 1.0)
        for worker, gradient in enumerate(gradients):
            self._step(worker, gradient, terms)
        held = np.stack([memory.reference for memory in self._memories])
        total = held.sum(0, dtype=np.float64).astype(np.float32)
        self._energies.append(lazy.energy(total))
        return total

    def _step(self, worker: int, gradient: F32, terms: lazy.SkipTerms | None) -> None:
        step = lazy.take_step(
            gradient, self._memories[worker], self._codec, self.layout, self._rng, terms=terms
        )
        self._memories[worker] = step.memory
        self.uploads += not step.has_skipped
        self.payload_bytes += _SKIP_BYTES if step.has_skipped else len(step.payload)


def methods(bits: int) -> Mapping[str, Callable[[Layout], Method]]:
    """Return the four methods of the paper by name, QGD and LAQ with so many bits a value."""
    raw, laq = create("raw-f32"), create("laq", {"bits": bits})
    return {
        "GD": GradientDescent,
        f"QGD-{bits}": lambda layout: Innovations(layout, laq, bits, skips=False),
        "LAG": lambda layout: Innovations(layout, raw, _FLOAT_BITS, skips=True),
        f"LAQ-{bits}": lambda layout: Innovations(layout, laq, bits, skips=True),
    }
