"""What one of any number of simulated devices draws from a dataset that all of them have.

Shards need the number of devices; here a device's id decides alone, so devices may come and go,
and two of them may have an example in common. Unequal draws follow the recipe of ``splits``,
turned round: each device's mix of classes is drawn from a Dirichlet distribution.
"""

import hashlib

import numpy as np

from learning.data.dataset import I64, DataError, Dataset


def draw(dataset: Dataset, examples: int, alpha: float | None, device: str, seed: int) -> Dataset:
    """Return a device's draw, without repetition; the same whenever it draws again.

    Args:
        dataset: What all devices have.
        examples: How many are drawn; the whole dataset where it has no more.
        alpha: Concentration of the Dirichlet mix of classes (small: devices differ more), or
            None for the dataset's own distribution.
        device: Decides the draw, together with ``seed``.
        seed: The same on every device.

    Raises:
        DataError: A number is out of range.
    """
    if examples < 1:
        message = f"sample: {examples}, it must be at least 1"
        raise DataError(message)
    digest = hashlib.sha256(device.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    if examples >= len(dataset):
        return dataset
    order = rng.permutation(len(dataset))
    if alpha is not None:
        order = _mixed(order, dataset.y, alpha, rng)
    return dataset.subset(np.sort(order[:examples]))


def _mixed(order: I64, labels: I64, alpha: float, rng: np.random.Generator) -> I64:
    """Return the order in which a device with a mix of its own would take the examples.

    Each example gets a rank within its class over the class's share, so that a prefix holds the
    classes in about those proportions until a class has no more.
    """
    if not (np.isfinite(alpha) and alpha > 0):
        message = f"alpha: {alpha}, it must be above 0"
        raise DataError(message)
    classes = np.unique(labels)
    shares = rng.dirichlet(np.full(len(classes), alpha))
    ranks = np.empty(len(order), dtype=np.float64)
    for label, share in zip(classes, shares, strict=True):
        places = np.flatnonzero(labels[order] == label)
        ranks[places] = (np.arange(len(places)) + 0.5) / max(float(share), 1e-12)
    mixed: I64 = order[np.argsort(ranks, kind="stable")]
    return mixed
