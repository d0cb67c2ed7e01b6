"""The device's examples, loaded once at start; numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

from learning.data import samples, splits
from learning.data.dataset import DataError, Dataset, concatenate
from learning.data.sources import load


@dataclass(frozen=True, slots=True)
class Sample:
    """A device's own draw, where nobody knows how many devices there will be.

    Attributes:
        device: Its id, which decides what it draws.
        examples: How many of each source.
    """

    device: str
    examples: int


def load_data(
    specs: Sequence[str],
    shard: str | None,
    alpha: float | None,
    split_seed: int,
    sample: Sample | None = None,
) -> dict[str, Dataset]:
    """Return the examples by the name of their source; like sources are put together.

    Args:
        specs: As ``learning.data.sources.load`` reads them.
        shard: ``I/N``: this device takes the I-th of N shards of each source.
        alpha: Concentration of a Dirichlet split; None: shards of equal distribution.
        split_seed: The same on every device that shares a source.
        sample: This device draws from each source; not together with ``shard``.

    Raises:
        DataError: There is no source, one cannot be loaded, or two of one name differ.
    """
    if not specs:
        message = "data: no source is given; a device without examples cannot take part"
        raise DataError(message)
    if shard is not None and sample is not None:
        message = f"sample: {sample.examples} with shard {shard}: give one of them"
        raise DataError(message)
    found: dict[str, list[Dataset]] = {}
    for spec in specs:
        dataset = load(spec)
        if shard is not None:
            index, count = splits.parse_shard(shard)
            dataset = splits.shard(dataset, index, count, alpha, split_seed)
        if sample is not None:
            dataset = samples.draw(dataset, sample.examples, alpha, sample.device, split_seed)
        found.setdefault(dataset.name, []).append(dataset)
    return {name: concatenate(parts) for name, parts in found.items()}
