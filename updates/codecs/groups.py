"""Which values of the flat vector share one scale: a tensor's, a bucket's, or all.

A bucket is so many consecutive values of the flat vector, whatever tensors they belong to; the
last one may be shorter. Its size is a power of two, so that blocks hold whole buckets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from updates.arrays import BLOCK_VALUES, F32, F64, check_finite, spans
from updates.errors import CodecParameterError
from updates.layout import Layout

_Item = TypeVar("_Item", bound=np.generic)

_MIN_BUCKET = 8
_MAX_BUCKET = 32_768
_BUCKETS = (0, *(1 << power for power in range(3, _MAX_BUCKET.bit_length())))


class Piece(NamedTuple):
    """Consecutive values inside one block that fall into whole rows of groups.

    Attributes:
        where: The values in the flat vector.
        inside: The same in the block.
        group: The first of their groups.
        many: How many groups they are; each has as many of the values, in one row.
    """

    where: slice
    inside: slice
    group: int
    many: int

    @property
    def groups(self) -> slice:
        """The groups among all groups."""
        return slice(self.group, self.group + self.many)

    def rows(self, vector: NDArray[_Item]) -> NDArray[_Item]:
        """Return the values of the whole vector that are here, as ``rows_inside`` does."""
        values = vector[self.where]
        return values if self.many == 1 else values.reshape(self.many, -1)

    def rows_inside(self, block: NDArray[_Item]) -> NDArray[_Item]:
        """Return the values of a block that are here, a view: one row a group, or flat if one."""
        values = block[self.inside]
        return values if self.many == 1 else values.reshape(self.many, -1)

    def factor(self, factors: F32) -> F32:
        """Return what rows are to be multiplied with, from one number a group."""
        chosen: F32 = factors[self.group] if self.many == 1 else factors[self.groups, None]
        return chosen


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
            found = self._buckets_in(span) if self.bucket else self._tensors_in(span, first)
            first = found[-1].group
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

    def _buckets_in(self, span: slice) -> list[Piece]:
        first, values = span.start // self.bucket, span.stop - span.start
        whole = values // self.bucket
        middle = whole * self.bucket
        found = []
        if whole:
            where = slice(span.start, span.start + middle)
            found.append(Piece(where, slice(0, middle), first, whole))
        if middle < values:
            where = slice(span.start + middle, span.stop)
            found.append(Piece(where, slice(middle, values), first + whole, 1))
        return found

    def _tensors_in(self, span: slice, first: int) -> list[Piece]:
        found = []
        begin, stop, group = span.start, span.stop, first
        while begin < stop:
            following = group + 1
            end = self.starts[following] if following < len(self.starts) else self.size
            if end > begin:
                end = min(end, stop)
                inside = slice(begin - span.start, end - span.start)
                found.append(Piece(slice(begin, end), inside, group, 1))
                begin = end
            group = following
        return found


def peaks(vector: F32, groups: Groups) -> F64:
    """Return the largest magnitude of each group.

    Raises:
        NonFiniteError: A value is not finite.
    """
    found = groups.reduced(vector, _row_peak, np.maximum)
    if not np.isfinite(found).all():
        check_finite(vector, "update")
    return found


def sums(vector: F32, groups: Groups, term: np.ufunc) -> F64:
    """Return the sum of ``term`` of the values of each group, in float64."""
    scratch = np.empty(min(BLOCK_VALUES, groups.size))

    def row_sums(rows: F32) -> F64:
        wide = scratch[: rows.size].reshape(rows.shape)
        np.copyto(wide, rows)
        total: F64 = term(wide, out=wide).sum(axis=-1)
        return total

    return groups.reduced(vector, row_sums, np.add)


def magnitudes(vector: F32, groups: Groups) -> F64:
    """Return the sum of the magnitudes of each group, in float64; as ``sums``, but faster."""
    scratch = np.empty(min(BLOCK_VALUES, groups.size), dtype=np.float32)

    def row_sums(rows: F32) -> F64:
        positive = np.abs(rows, out=scratch[: rows.size].reshape(rows.shape))
        total: F64 = np.add.reduce(positive, axis=-1, dtype=np.float64)
        return total

    return groups.reduced(vector, row_sums, np.add)


def check_bucket(bucket: object) -> None:
    """Refuse a bucket size that is not 0 or a power of two that divides a block.

    Raises:
        CodecParameterError: It is something else.
    """
    if type(bucket) is not int or bucket not in _BUCKETS:
        limit = f"must be 0 (one scale for all) or a power of two, {_MIN_BUCKET} to {_MAX_BUCKET}"
        raise CodecParameterError(field="bucket", value=bucket, limit=limit)


def _row_peak(rows: F32) -> F32:
    largest: F32 = np.maximum(rows.max(axis=-1), -rows.min(axis=-1))
    return largest
