import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.data.dataset import DataError, Dataset
from learning.data.splits import MIN_EXAMPLES, dirichlet_split, parse_shard, shard


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=300),
    shards=st.integers(1, 20),
    alpha=st.sampled_from([0.01, 0.1, 0.5, 10.0, 1000.0]),
    seed=st.integers(0, 1000),
)
def test_every_example_is_in_exactly_one_shard_and_no_shard_is_starved(
    labels, shards, alpha, seed
):
    shards = min(shards, len(labels))
    parts = dirichlet_split(np.array(labels), shards, alpha, np.random.default_rng(seed))
    assert len(parts) == shards
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert min(map(len, parts)) >= min(MIN_EXAMPLES, len(labels) // shards) >= 1


def labels_by_shard(alpha):
    labels = np.repeat(np.arange(10), 200)
    parts = dirichlet_split(labels, 5, alpha, np.random.default_rng(1))
    return np.array([np.bincount(labels[part], minlength=10) / len(part) for part in parts])


def test_a_small_alpha_gives_devices_that_differ_more():
    assert labels_by_shard(0.1).std(axis=0).mean() > 3 * labels_by_shard(100).std(axis=0).mean()


def dataset(n=100):
    x = np.arange(n, dtype=np.float32)[:, None]
    return Dataset(x, np.arange(n, dtype=np.int64) % 4, 4, "toy")


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_the_shards_of_all_devices_are_the_dataset(alpha):
    parts = [shard(dataset(), index, 4, alpha, seed=3) for index in range(1, 5)]
    assert sorted(np.concatenate([part.x[:, 0] for part in parts])) == list(range(100))


def test_without_alpha_shards_are_of_equal_size():
    assert [len(shard(dataset(), index, 8, None, 0)) for index in range(1, 9)] == [13] * 4 + [
        12
    ] * 4


def test_the_same_seed_gives_the_same_shard_and_another_seed_another():
    first, again, other = (shard(dataset(), 1, 4, 0.5, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.x, again.x)
    assert first.x.tolist() != other.x.tolist()


def test_a_shard_is_written_as_index_of_count():
    assert parse_shard("1/4") == (1, 4)
    for text in ("0/4", "5/4", "1", "1/0", "-1/4", "1/4/2", "a/b", ""):
        with pytest.raises(DataError, match=r"^shard: "):
            parse_shard(text)


@pytest.mark.parametrize(
    ("index", "count", "alpha", "field"),
    [
        (0, 4, None, "shard"),
        (5, 4, None, "shard"),
        (1, 101, None, "shards"),
        (1, 4, 0.0, "alpha"),
        (1, 4, float("nan"), "alpha"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(index, count, alpha, field):
    with pytest.raises(DataError, match=f"^{field}: "):
        shard(dataset(), index, count, alpha, seed=0)
