"""What a codec is: a pair of pure functions between a flat vector and bytes.

A subclass is a frozen dataclass whose fields are its parameters, checked when it is made. It says
how a body is written and how a checked body is read in blocks; header, checksum, accumulation and
the refusal of non-finite values are the same for all and live here. Two codecs may share an id
only if each decodes the other's bytes; a changed body takes a new id and a new number.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from updates.arrays import F32, F64, check_finite
from updates.codecs import header
from updates.codecs.scaled_body import ScaledBody
from updates.codecs.scaled_sum import ScaledSum
from updates.kernels import Kernels
from updates.layout import Layout
from updates.workspace import Workspace

#: Where some values belong in the flat vector (each position at most once), and the values, at
#: most ``BLOCK_VALUES``; they are good until the next block is asked for.
Block: TypeAlias = tuple[slice | NDArray[np.intp], F32]

#: Whether a sender keeps what the codec left out and adds it to its next update. ``required``: it
#: converges badly without; ``forbidden``: its error may exceed the update, so the sum would grow
#: (Stich, Karimireddy, "The Error-Feedback Framework", JMLR 2020, https://arxiv.org/abs/1909.05350).
Feedback: TypeAlias = Literal["required", "allowed", "forbidden"]


@dataclass(frozen=True, slots=True)
class Codec(ABC):
    """Encodes and decodes updates of any layout; holds no state.

    Attributes:
        codec_id: Name in tasks and headers.
        number: The same in one byte of every payload, 1 to 255, never reused.
    """

    codec_id: ClassVar[str]
    number: ClassVar[int]
    #: Whether ``_write`` refuses what is not finite by itself, in a pass that it makes anyway.
    finds_non_finite: ClassVar[bool] = False
    #: Whether every body's blocks are ``spans(0, layout.size)``, so that several can be added up
    #: block by block.
    in_step: ClassVar[bool] = False

    @property
    def is_random(self) -> bool:
        """Whether the bytes depend on ``rng``."""
        return False

    @property
    @abstractmethod
    def is_biased(self) -> bool:
        """Whether the mean of many encodings of one update differs from it beyond rounding."""

    @property
    @abstractmethod
    def feedback(self) -> Feedback:
        """Whether error feedback must, may or must not go with it."""

    @property
    def needs_reference(self) -> bool:
        """Whether a payload is the difference to a vector that both ends hold."""
        return False

    def encode(self, vector: F32, layout: Layout, rng: np.random.Generator) -> bytes:
        """Return the payload of one update.

        Args:
            vector: The update, float32 of shape ``(layout.size,)``; left untouched.
            layout: Names and shapes behind the vector.
            rng: Source of the rounding noise; the same state gives the same bytes.

        Raises:
            PayloadError: The vector does not fit the layout.
            NonFiniteError: A value is NaN or infinite.
        """
        layout.check_vector(vector)
        if not self.finds_non_finite:
            check_finite(vector, "update")
        written = self._write(vector, layout, rng)
        if isinstance(written, header.Draft):
            return written.finish(self.number, layout.size)
        return header.pack(self.number, layout.size, written)

    def check(self, payload: Buffer, layout: Layout) -> None:
        """Refuse whatever ``decode`` would refuse, without building the vector.

        Raises:
            PayloadError: The payload is not one that this codec writes for the layout.
        """
        self._blocks(payload, layout)

    def decode(self, payload: Buffer, layout: Layout) -> F32:
        """Return the update in a payload, a new vector of shape ``(layout.size,)``.

        Raises:
            PayloadError: The payload is not one that this codec writes for the layout.
        """
        blocks = self._blocks(payload, layout)
        vector = np.zeros(layout.size, dtype=np.float32)
        for where, values in blocks:
            vector[where] = values
        return vector

    def add_into(
        self,
        accumulator: F64,
        payload: Buffer,
        layout: Layout,
        weight: float,
        kernels: Kernels | None = None,
    ) -> None:
        """Add ``weight`` times the decoded update, block by block.

        Every codec and every way adds ``weight * float64(value)`` to float64, so the bits are the
        same with kernels and without, and those of ``decode``.

        Args:
            accumulator: float64 of shape ``(layout.size,)``, changed in place; as it was if the
                payload is refused.
            payload: One encoded update.
            layout: Names and shapes behind the vector.
            weight: Factor of this update, as a rule its number of examples.
            kernels: Compiled loops; None: numpy.

        Raises:
            PayloadError: The payload is not one that this codec writes for the layout.
            ValueError: The accumulator is not of the layout's size.
        """
        workspace = Workspace(kernels)
        for _ in self.adding(accumulator, payload, layout, weight, workspace):
            pass

    def adding(
        self,
        accumulator: F64,
        payload: Buffer,
        layout: Layout,
        weight: float,
        workspace: Workspace,
    ) -> Iterator[None]:
        """Check everything that ``add_into`` does, then return its steps, of a block each."""
        if accumulator.shape != (layout.size,):
            message = f"accumulator: shape {accumulator.shape}, the layout has {(layout.size,)}"
            raise ValueError(message)
        body = self._blocks(payload, layout)
        if isinstance(body, ScaledBody):
            return ScaledSum(body, accumulator, weight, workspace).steps()
        return _adding(body, accumulator, weight, workspace)

    def encoded_size_bound(self, layout: Layout) -> int:
        """Return the size in bytes that no payload for the layout exceeds."""
        return header.HEADER_BYTES + self._body_bound(layout)

    def _blocks(self, payload: Buffer, layout: Layout) -> Iterable[Block]:
        body = header.unpack(
            payload,
            number=self.number,
            values=layout.size,
            max_bytes=self.encoded_size_bound(layout),
        )
        return self._open(body, layout)

    @abstractmethod
    def _write(
        self, vector: F32, layout: Layout, rng: np.random.Generator
    ) -> Sequence[Buffer] | header.Draft:
        """Return the body, in parts or in place.

        The vector fits the layout, and is finite unless ``finds_non_finite``.
        """

    @abstractmethod
    def _open(self, body: memoryview, layout: Layout) -> Iterable[Block]:
        """Check the whole body, then return its blocks, whose reading cannot fail.

        Raises:
            PayloadError: The body has the wrong length or a value that it may not have.
        """

    @abstractmethod
    def _body_bound(self, layout: Layout) -> int:
        """Return the length in bytes that no body for the layout exceeds."""


def _adding(
    body: Iterable[Block], accumulator: F64, weight: float, workspace: Workspace
) -> Iterator[None]:
    kernels = workspace.kernels
    for where, values in body:
        if kernels is not None and isinstance(where, slice):
            kernels.add_values(accumulator[where], values, weight)
        else:
            # A cast and a product are faster than a product that casts; the bits are the same.
            products = workspace.products[: values.size]
            np.copyto(products, values)
            products *= weight
            accumulator[where] += products
        yield
