"""Which values share a scale."""

import numpy as np
import pytest

from updates.arrays import BLOCK_VALUES
from updates.codecs.groups import Groups, check_bucket, peaks, sums
from updates.errors import CodecParameterError
from updates.layout import Layout

LAYOUT = Layout.of({"a": (BLOCK_VALUES - 3,), "b": (5,), "c": (), "d": (2, BLOCK_VALUES)})
DIVISIONS = {
    "tensors": Groups.tensors(LAYOUT),
    "whole": Groups.buckets(LAYOUT, 0),
    "small buckets": Groups.buckets(LAYOUT, 8),
    "blocks": Groups.buckets(LAYOUT, BLOCK_VALUES),
}
every_division = pytest.mark.parametrize("groups", DIVISIONS.values(), ids=DIVISIONS)


def starts_and_ends(groups):
    return list(zip(groups.starts, [*groups.starts[1:], groups.size], strict=True))


@every_division
def test_pieces_cover_the_vector_once_in_order(groups):
    vector = np.arange(LAYOUT.size, dtype=np.float32)
    seen = [piece.rows(vector).reshape(-1) for _, pieces in groups.pieces() for piece in pieces]
    np.testing.assert_array_equal(np.concatenate(seen), vector)


@every_division
def test_each_value_lies_in_the_row_of_its_group(groups):
    number = np.zeros(LAYOUT.size, dtype=np.float32)
    for index, (start, end) in enumerate(starts_and_ends(groups)):
        number[start:end] = index
    for span, pieces in groups.pieces():
        for piece in pieces:
            expected = piece.factor(np.arange(groups.count, dtype=np.float32))
            assert (piece.rows(number) == expected).all()
            assert (piece.rows_inside(number[span].copy()) == expected).all()


@every_division
def test_peaks_and_sums_are_those_of_each_group(groups):
    vector = np.random.default_rng(0).standard_normal(LAYOUT.size, dtype=np.float32)
    bounds = starts_and_ends(groups)
    expected = [np.abs(vector[start:end]).max() for start, end in bounds]
    np.testing.assert_array_equal(peaks(vector, groups), expected)
    squares = [np.square(vector[start:end].astype(np.float64)).sum() for start, end in bounds]
    np.testing.assert_allclose(sums(vector, groups, np.square), squares, rtol=1e-12)
    np.testing.assert_array_equal(groups.counts(), [end - start for start, end in bounds])


@pytest.mark.parametrize("bucket", [0, 8, 512, 32_768])
def test_powers_of_two_that_fit_a_block_are_buckets(bucket):
    check_bucket(bucket)


@pytest.mark.parametrize("bucket", [1, 4, 12, 65_536, -8, True, 8.0, "8", None, [8]])
def test_other_buckets_are_refused_with_the_limits(bucket):
    with pytest.raises(CodecParameterError, match=r"bucket: .* power of two, 8 to 32768"):
        check_bucket(bucket)
