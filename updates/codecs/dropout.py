"""Federated dropout of an update: whole units of every tensor are sent, the others are not.

Source: Caldas, Konecny, McMahan, Talwalkar, "Expanding the Reach of Federated Learning by Reducing
Client Resource Requirements", 2018, https://arxiv.org/abs/1812.07210, section 3.2. There the
device trains a smaller model; here it trains the whole one and sends a part of its update.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from updates.codecs.public_random import derived, distinct_positions
from updates.codecs.rice import Positions
from updates.codecs.seeded_share import SeededShareCodec
from updates.codecs.sparse_parameters import share_of
from updates.layout import Layout, TensorSpec


@dataclass(frozen=True, slots=True)
class DropoutCodec(SeededShareCodec):
    """A random share of the units of each tensor, as float16; the others decode to zero.

    A unit is a row: all values with one index along the first dimension, so an output of a dense
    layer or a filter of a convolution; in a vector it is a value. ``ceil(fraction * rows)`` units
    of each tensor are sent, which ones the public seed says, tensor by tensor.

    Wire layout of the body: as ``SeededShareCodec``, a part a tensor, in canonical order.
    ``16 * fraction`` bits a value.

    A sum over clients has one weight for all coordinates and cannot divide each by the weight of
    those that hold it. So with ``unbiased`` a tensor's decoded values are ``rows / sent`` times
    those sent, which is that average in expectation: right on the mean, with a mean squared error
    of ``(rows/sent - 1) ||x||**2`` a tensor, error feedback forbidden. Without, units that are not
    sent count as zero, the error is their energy, and error feedback is required. Rounding to
    float16 adds ``2**-11`` relative; decoded values beyond the largest float32 are clipped.

    Attributes:
        fraction: Share of each tensor's units that is sent, above 0 and up to 1.
        unbiased: Whether decoded values are scaled to make up for the units not sent.
    """

    codec_id: ClassVar[str] = "dropout"
    number: ClassVar[int] = 21

    fraction: float = 0.5
    unbiased: bool = True

    def _parts(self, seed: int, layout: Layout) -> Iterator[tuple[Positions, float]]:
        for number, (spec, place) in enumerate(
            zip(layout.tensors, layout.slices().values(), strict=True)
        ):
            rows, width = _units(spec)
            count = share_of(rows, self.fraction)
            chosen = distinct_positions(derived(seed, number), count, rows)
            positions = (
                chosen[:, None] * width + np.arange(place.start, place.start + width)
            ).ravel()
            yield positions, rows / count if self.unbiased else 1.0

    def _sent(self, layout: Layout) -> int:
        return sum(
            share_of(rows, self.fraction) * width for rows, width in map(_units, layout.tensors)
        )


def _units(spec: TensorSpec) -> tuple[int, int]:
    """Return the number of units of a tensor and the values of each."""
    rows = spec.shape[0] if spec.shape else 1
    return rows, spec.size // rows
