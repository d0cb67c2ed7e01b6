"""Split one dataset among simulated devices.

Unequal shards follow T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical
Data Distribution for Federated Visual Classification", 2019, https://arxiv.org/abs/1909.06335,
section 3: each class is dealt out in proportions drawn from a Dirichlet distribution.
"""

import re

import numpy as np

from learning.data.dataset import I64, DataError, Dataset

#: Examples that every shard gets, when there are enough.
MIN_EXAMPLES = 8

_SHARD = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})")


def parse_shard(text: str) -> tuple[int, int]:
    """Return ``(index, count)`` of ``"1/4"``: the first of four.

    Raises:
        DataError: It is not of that form, or the index is above the count.
    """
    match = _SHARD.fullmatch(text.strip())
    if match is None or int(match[1]) > int(match[2]):
        message = f"shard: {text!r}, it must be like 1/4, from 1/4 to 4/4"
        raise DataError(message)
    return int(match[1]), int(match[2])


def shard(dataset: Dataset, index: int, count: int, alpha: float | None, seed: int) -> Dataset:
    """Return shard ``index`` of ``count``; all shards together are the dataset.

    Args:
        dataset: What is split; every device must load the same.
        index: From 1 to ``count``.
        count: Number of shards, at most the number of examples.
        alpha: Concentration of the Dirichlet split (small: devices differ more), or None for
            shards of equal size and distribution.
        seed: The same on every device.

    Raises:
        DataError: A number is out of range.
    """
    if not 1 <= index <= count:
        message = f"shard: {index}/{count}, the first number must be from 1 to the second"
        raise DataError(message)
    rng = np.random.default_rng(seed)
    if alpha is None:
        _check_shards(len(dataset), count)
        parts = np.array_split(rng.permutation(len(dataset)), count)
    else:
        parts = dirichlet_split(dataset.y, count, alpha, rng)
    return dataset.subset(np.sort(parts[index - 1]))


def dirichlet_split(labels: I64, shards: int, alpha: float, rng: np.random.Generator) -> list[I64]:
    """Return the indices of each shard; every example is in exactly one.

    Shards that got fewer than ``MIN_EXAMPLES`` (or than an equal share, if that is less) are
    filled up from the largest ones.

    Args:
        labels: Shape ``(n,)``.
        shards: Number of shards, at most ``n``.
        alpha: Concentration, above 0.
        rng: Decides everything.

    Raises:
        DataError: ``shards`` or ``alpha`` is out of range.
    """
    _check_shards(len(labels), shards)
    if not (np.isfinite(alpha) and alpha > 0):
        message = f"alpha: {alpha}, it must be above 0"
        raise DataError(message)
    dealt: list[list[I64]] = [[] for _ in range(shards)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        bounds = np.cumsum(rng.dirichlet(np.full(shards, alpha)))[:-1] * len(members)
        for hand, part in zip(dealt, np.split(members, bounds.astype(np.int64)), strict=True):
            hand.append(part)
    return _filled_up([rng.permutation(np.concatenate(hand)) for hand in dealt], len(labels))


def _filled_up(parts: list[I64], examples: int) -> list[I64]:
    minimum = min(MIN_EXAMPLES, examples // len(parts))
    for poor in range(len(parts)):
        while len(parts[poor]) < minimum:
            rich = max(range(len(parts)), key=lambda shard: len(parts[shard]))
            spare = min(minimum - len(parts[poor]), len(parts[rich]) - minimum)
            parts[poor] = np.concatenate([parts[poor], parts[rich][:spare]])
            parts[rich] = parts[rich][spare:]
    return parts


def _check_shards(examples: int, shards: int) -> None:
    if not 1 <= shards <= examples:
        message = f"shards: {shards}, they must be from 1 to the {examples} examples"
        raise DataError(message)
