"""Quantization with a memory: each rounding error is added to values after it.

``q_i = nearest(x_i + sum_j h_j u_{i-j})`` and ``u_i = x_i + sum_j h_j u_{i-j} - q_i``, with u zero
at the beginning of each lane. Lanes are independent of each other, so one step goes over all of
them at once. What decodes needs to know nothing of it.

With K levels to either side and ``max|x| <= K - h/2`` steps, h the sum of all ``|h_j|``, no
argument is beyond the outermost decision, so ``|u| <= 1/2`` for ever: the scales are chosen so.

Source: Zhang, Kannan, Cloninger, Saab, "Sigma-Delta and Distributed Noise-Shaping Quantization
Methods for Random Fourier Features", Information and Inference 13(1), 2024,
https://arxiv.org/abs/2106.02614, section 2, which scales so where it takes ``beta``.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32
from updates.codecs import bits as packing
from updates.codecs.base import Feedback
from updates.codecs.grid import Grid, covering
from updates.codecs.groups import Groups, check_bucket, peaks
from updates.codecs.parameters import check_int
from updates.codecs.scaled import ScaledCodec, in_steps
from updates.layout import Layout

#: Values a lane where all values share one scale; else a lane is a bucket.
LANE = 512
#: Lanes that are taken at once: a column of them, and the memory, stay in the L1 cache.
_LANES = 2048

#: The weight of the error so many values before.
Filter = dict[int, float]


@dataclass(frozen=True, slots=True)
class ShapedCodec(ScaledCodec):
    """Levels ``+-(j - 1/2) d``, j = 1..K, ``d = max|x| / (K - h/2)``, errors carried on."""

    bits: int = 4
    bucket: int = 512

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_int("bits", self.bits, 1, 8)
        check_bucket(self.bucket)

    @property
    @abstractmethod
    def weights(self) -> Filter:
        """The filter h."""

    @property
    def restart(self) -> int:
        """Values after which the memory is forgotten inside a lane; 0: never."""
        return 0

    @property
    def is_biased(self) -> bool:
        """Deterministic."""
        return True

    @property
    def feedback(self) -> Feedback:
        """Whether the error is less than the update whatever it is."""
        total = self._total_weight()
        contracts = self.bucket and self.bucket * (1 + total) ** 2 < (2**self.bits - total) ** 2
        return "allowed" if contracts else "forbidden"

    @property
    def grid(self) -> Grid:
        """``2 K`` levels."""
        return Grid.mid_rise(self.bits)

    def groups(self, layout: Layout) -> Groups:
        """Return the buckets."""
        return Groups.buckets(layout, self.bucket)

    def _scales(self, vector: F32, groups: Groups) -> F32:
        top = self.grid.levels - self._total_weight()
        return covering(peaks(vector, groups), top, self.grid.max_scale)

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        del rng
        groups = self.groups(layout)
        scales = self._scales(vector, groups)
        steps = np.concatenate([block.copy() for block in in_steps(vector, groups, scales, 2)])
        lane = self.bucket or LANE
        codes = shaped(steps, lane, self.weights, self.grid.levels // 2, self.restart)
        packed = (packing.pack(part, self.bits).data for part in codes)
        return (scales.astype("<f4").data, *packed)

    def _total_weight(self) -> float:
        return sum(map(abs, self.weights.values()))


def shaped(
    steps: F32, lane: int, weights: Filter, half: int, restart: int
) -> Iterator[packing.U8]:
    """Yield the codes of a vector in parts, which together are as long as it is.

    Args:
        steps: Values in steps, shape ``(n,)``.
        lane: Values a lane, a multiple of 8; a shorter vector is one lane.
        weights: The filter h.
        half: K; codes are 0 to ``2 K - 1``.
        restart: Values after which the memory is forgotten inside a lane; 0: never.
    """
    lane = min(lane, steps.size)
    part = lane * _LANES
    for begin in range(0, steps.size, part):
        values = steps[begin : begin + part]
        rows = np.zeros((-(-values.size // lane), lane), dtype=np.float32)
        rows.reshape(-1)[: values.size] = values
        yield _lanes(rows, weights, half, restart)[: values.size]


def _lanes(rows: F32, weights: Filter, half: int, restart: int) -> packing.U8:
    lanes, length = rows.shape
    columns = np.ascontiguousarray(rows.T)
    codes = np.empty((length, lanes), dtype=np.uint8)
    kept = max(weights)
    errors = np.zeros((kept, lanes), dtype=np.float32)
    for position in range(length):
        if restart and position % restart == 0:
            errors[:] = 0
        value = columns[position]
        for delay, weight in weights.items():
            value += np.float32(weight) * errors[(position - delay) % kept]
        level = np.floor(value)
        np.clip(level, -half, half - 1, out=level)
        np.copyto(codes[position], level + np.float32(half), casting="unsafe")
        level += np.float32(0.5)
        np.subtract(value, level, out=errors[position % kept])
    return np.ascontiguousarray(codes.T).reshape(-1)
