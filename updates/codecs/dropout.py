"""Federated dropout of an update: whole units of every tensor are sent, the others are not.

Source: Caldas, Konecny, McMahan, Talwalkar, "Expanding the Reach of Federated Learning by Reducing
Client Resource Requirements", 2018, https://arxiv.org/abs/1812.07210, section 3.2. There the
device trains a smaller model; here it trains the whole one and sends a part of its update.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import Buffer

from updates.arrays import F32, spans
from updates.codecs import scaled_halves
from updates.codecs.base import Block, Codec, Feedback
from updates.codecs.header import require_body_length
from updates.codecs.parameters import check_flag
from updates.codecs.public_random import derived, distinct_positions, draw_seed
from updates.codecs.rice import Positions
from updates.codecs.sparse_parameters import check_fraction, share_of
from updates.layout import Layout, TensorSpec

_HEAD = struct.Struct("<Qh")


@dataclass(frozen=True, slots=True)
class DropoutCodec(Codec):
    """A random share of the units of each tensor, as float16; the others decode to zero.

    A unit is a row: all values with one index along the first dimension, so an output of a dense
    layer or a filter of a convolution; in a vector it is a value. ``ceil(fraction * rows)`` units
    of each tensor are sent, which ones the public seed says, tensor by tensor.

    Wire layout of the body: seed (u64 LE), exponent e (i16 LE), one float16 LE for each value of
    the sent units in canonical order, each times ``2**(15 - e)``. ``16 * fraction`` bits a value.

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

    def __post_init__(self) -> None:
        """Check the parameters."""
        check_fraction(self.fraction)
        check_flag("unbiased", self.unbiased)

    @property
    def is_random(self) -> bool:
        """Its units are."""
        return True

    @property
    def is_biased(self) -> bool:
        """Unless it makes up for the units that are not sent."""
        return not self.unbiased

    @property
    def feedback(self) -> Feedback:
        """Scaled, the error may exceed the update; plain, what is not sent must not be lost."""
        return "forbidden" if self.unbiased else "required"

    def _write(self, vector: F32, layout: Layout, rng: np.random.Generator) -> Sequence[Buffer]:
        seed = draw_seed(rng)
        sent = np.concatenate([vector[where] for where, _ in self._parts(seed, layout)])
        exponent, halves = scaled_halves.encode(sent)
        return (_HEAD.pack(seed, exponent), halves.data)

    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        require_body_length(len(body), self._body_bound(layout))
        seed, exponent = _HEAD.unpack_from(body)
        scaled_halves.check_exponent(exponent)
        return self._sent(scaled_halves.read(body[_HEAD.size :]), exponent, seed, layout)

    def _body_bound(self, layout: Layout) -> int:
        sent = sum(
            share_of(rows, self.fraction) * width for rows, width in map(_units, layout.tensors)
        )
        return _HEAD.size + scaled_halves.HALF_BYTES * sent

    def _parts(self, seed: int, layout: Layout) -> Iterator[tuple[Positions, float]]:
        """Yield the positions that are sent and their factor, tensor by tensor."""
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

    def _sent(
        self, halves: scaled_halves.Halves, exponent: int, seed: int, layout: Layout
    ) -> Iterator[Block]:
        start = 0
        for positions, factor in self._parts(seed, layout):
            part = halves[start : start + positions.size]
            start += positions.size
            for span in spans(0, positions.size):
                yield positions[span], scaled_halves.decode_times(part[span], exponent, factor)


def _units(spec: TensorSpec) -> tuple[int, int]:
    """Return the number of units of a tensor and the values of each."""
    rows = spec.shape[0] if spec.shape else 1
    return rows, spec.size // rows
