"""Which values of the flat vector share one scale: a tensor's, a bucket's, or all.

A bucket is so many consecutive values of the flat vector, whatever tensors they belong to; the
last one may be shorter. Its size is a power of two, so that blocks hold whole buckets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from updates.arrays import BLOCK_VALUES, F32, F64, spans
from updates.errors import CodecParameterError
from updates.layout import Layout

_MIN_BUCKET = 8
_BUCKETS = (0, *(1 << power for power in range(3, BLOCK_VALUES.bit_length())))


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive values inside one block that fall into whole rows of groups.

    Attributes:
        where: The values in the flat vector.
        groups: Their groups; each has as many of the values, in one row.
    """

    where: slice
    groups: slice

    def rows(self, vector: F32) -> F32:
        """Return the values of the whole vector that are here, one row a group."""
        return self._folded(vector[self.where])

    def inside(self, span: slice) -> slice:
        """Return where the values lie in the block that covers ``span``."""
        return slice(self.where.start - span.start, self.where.stop - span.start)

    def rows_inside(self, block: F32, span: slice) -> F32:
        """Return the values of a block that are here, as a view of one row a group."""
        return self._folded(block[self.inside(span)])

    def _folded(self, values: F32) -> F32:
        return values.reshape(self.groups.stop - self.groups.start, -1)


@dataclass(frozen=True, slots=True)
class Groups:
    """A division of a flat vector into consecutive groups.

    Attributes:
        starts: The first position of each group, ascending from 0.
        size: Number of values in the vector.
        bucket: Values a group where all but the last are alike, else 0.
    """

    starts: tuple[int, ...] | range
    size: int
    bucket: int = 0

    @classmethod
    def tensors(cls, layout: Layout) -> "Groups":
        """Return one group a tensor."""
        return cls(layout.offsets, layout.size)

    @classmethod
    def buckets(cls, layout: Layout, bucket: int) -> "Groups":
        """Return groups of ``bucket`` values; 0 makes all values one group."""
        if bucket:
            return cls(range(0, layout.size, bucket), layout.size, bucket)
        return cls((0,), layout.size)

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.starts)

    def counts(self) -> NDArray[np.int64]:
        """Return the number of values in each group."""
        ends = np.array([*self.starts[1:], self.size], dtype=np.int64)
        return ends - np.array(self.starts, dtype=np.int64)

    def pieces(self) -> Iterator[tuple[slice, list[Piece]]]:
        """Yield each block of the vector with the pieces it consists of."""
        first = 0
        for span in spans(0, self.size):
            if self.bucket:
                yield span, list(self._bucket_pieces(span))
            else:
                found = list(self._tensor_pieces(span, first))
                first = found[-1].groups.start
                yield span, found

    def reduced(
        self, vector: F32, row_value: Callable[[F32], NDArray[np.floating]], join: np.ufunc
    ) -> F64:
        """Return one number a group.

        Args:
            vector: Shape ``(size,)``.
            row_value: Turns rows of values into one number a row, at least 0.
            join: Joins the numbers of a group that lies in several blocks.
        """
        found = np.zeros(self.count)
        for _, pieces in self.pieces():
            for piece in pieces:
                part = found[piece.groups]
                join(part, row_value(piece.rows(vector)), out=part)
        return found

    def _bucket_pieces(self, span: slice) -> Iterator[Piece]:
        first = span.start // self.bucket
        whole = (span.stop - span.start) // self.bucket
        middle = span.start + whole * self.bucket
        if whole:
            yield Piece(slice(span.start, middle), slice(first, first + whole))
        if middle < span.stop:
            yield Piece(slice(middle, span.stop), slice(first + whole, first + whole + 1))

    def _tensor_pieces(self, span: slice, first: int) -> Iterator[Piece]:
        for group in range(first, self.count):
            start = self.starts[group]
            stop = self.starts[group + 1] if group + 1 < self.count else self.size
            if start >= span.stop:
                return
            if stop > span.start:
                where = slice(max(start, span.start), min(stop, span.stop))
                yield Piece(where, slice(group, group + 1))


def peaks(vector: F32, groups: Groups) -> F64:
    """Return the largest magnitude of each group."""
    return groups.reduced(vector, _row_peak, np.maximum)


def sums(vector: F32, groups: Groups, term: Callable[[F64], F64]) -> F64:
    """Return the sum of ``term`` over each group, in float64."""
    return groups.reduced(vector, lambda rows: term(rows.astype(np.float64)).sum(axis=1), np.add)


def check_bucket(bucket: object) -> None:
    """Refuse a bucket size that is not 0 or a power of two that divides a block.

    Raises:
        CodecParameterError: It is something else.
    """
    if type(bucket) is not int or bucket not in _BUCKETS:
        limit = f"must be 0 (one scale for all) or a power of two, {_MIN_BUCKET} to {BLOCK_VALUES}"
        raise CodecParameterError(field="bucket", value=bucket, limit=limit)


def _row_peak(rows: F32) -> F32:
    largest: F32 = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return largest
