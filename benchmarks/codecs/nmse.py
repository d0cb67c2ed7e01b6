"""Squared error of every codec by the energy of the vector, on four kinds of vectors.

The kinds and the definition, ``||decoded - x||**2 / ||x||**2`` over one vector, are those in which
quantizers of federated learning are commonly compared. On heavy tails codecs that scale by the
largest value depend on this one value: ask for several seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from benchmarks.codecs.variants import Variant
from fedfleet.tables import table
from updates.arrays import F32
from updates.codecs.header import HEADER_BYTES
from updates.layout import Layout

_BYTE_BITS = 8


def _spiky(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal(count) * rng.lognormal(0.0, 1.5, count)


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "gauss": lambda rng, count: rng.standard_normal(count),
    "laplace": lambda rng, count: rng.laplace(size=count),
    "student-t3": lambda rng, count: rng.standard_t(3, count),
    "spiky": _spiky,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What one variant did.

    Attributes:
        codec: Its title.
        bits_per_value: Of the body, on the first kind and seed.
        nmse: For each kind of vector, the error with each seed.
    """

    codec: str
    bits_per_value: float
    nmse: dict[str, list[float]]

    def row(self) -> tuple[str, ...]:
        """Return the row of the table: medians over the seeds, and the range where it is wide."""
        return (self.codec, f"{self.bits_per_value:.2f}", *map(_cell, self.nmse.values()))


def vector_of(kind: str, seed: int, count: int) -> F32:
    """Return a vector of a kind; the same seed gives the same vector."""
    return KINDS[kind](np.random.default_rng(seed), count).astype(np.float32)


def measured(variants: Sequence[Variant], count: int, seeds: int) -> list[Figures]:
    """Return the figures of each variant; each vector is made once for all of them."""
    layout = Layout.of({"w": (count,)})
    found: list[dict[str, list[float]]] = [{kind: [] for kind in KINDS} for _ in variants]
    sizes = [0.0] * len(variants)
    for kind in KINDS:
        for seed in range(seeds):
            vector = vector_of(kind, seed, count)
            for index, variant in enumerate(variants):
                error, size = _measured(variant, vector, layout)
                found[index][kind].append(error)
                sizes[index] = sizes[index] or size
    return [
        Figures(variant.title, size, errors)
        for variant, size, errors in zip(variants, sizes, found, strict=True)
    ]


def report(figures: Sequence[Figures]) -> str:
    """Return the table."""
    return table(("codec", "bits", *KINDS), [one.row() for one in figures])


def as_objects(figures: Sequence[Figures]) -> list[dict[str, object]]:
    """Return the figures as JSON objects."""
    return [asdict(one) for one in figures]


def _measured(variant: Variant, vector: F32, layout: Layout) -> tuple[float, float]:
    codec = variant.make()
    payload = codec.encode(vector, layout, np.random.default_rng(1))
    error = codec.decode(payload, layout).astype(np.float64) - vector
    nmse = float(np.square(error).sum() / np.square(vector.astype(np.float64)).sum())
    return nmse, _BYTE_BITS * (len(payload) - HEADER_BYTES) / layout.size


def _cell(errors: list[float]) -> str:
    middle = f"{median(errors):.3g}"
    wide = max(errors) > 1.1 * min(errors)
    return f"{middle} ({min(errors):.2g}..{max(errors):.2g})" if wide else middle
