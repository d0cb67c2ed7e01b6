"""Which examples each step trains on. Pure; no trainer's framework is needed."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.tasks import Training

I64 = NDArray[np.int64]


def total_steps(examples: int, training: Training) -> int:
    """Return the number of steps: ``steps``, or those of ``epochs`` passes."""
    if training.steps is not None:
        return training.steps
    return training.epochs * math.ceil(examples / training.batch_size)


def distinct_examples(examples: int, training: Training) -> int:
    """Return how many different examples are trained on."""
    return min(examples, total_steps(examples, training) * training.batch_size)


def batches(examples: int, training: Training, rng: np.random.Generator) -> Iterator[I64]:
    """Yield the indices of each step's batch, shape ``(at most batch_size,)``.

    Every pass is a new permutation of all examples; its last batch may be smaller.

    Args:
        examples: Number of examples, at least 1.
        training: Epochs or steps, and the batch size.
        rng: Decides the order.
    """
    left = total_steps(examples, training)
    while left:
        order = rng.permutation(examples)
        for start in range(0, examples, training.batch_size)[:left]:
            yield order[start : start + training.batch_size]
            left -= 1
