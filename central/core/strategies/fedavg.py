"""Federated averaging: the mean update, weighted by each client's number of examples.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017, https://arxiv.org/abs/1602.05629, algorithm 1;
with the server learning rate of Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
https://arxiv.org/abs/2003.00295, algorithm 1.
"""

from dataclasses import dataclass

import numpy as np

from central.core.strategies.base import F32, F64, Contributions, State

#: Values handled at once; they fit the cache.
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class FedAvg:
    """``model + server_lr * sum(n_i * update_i) / sum(n_i)``, or unweighted: each ``n_i`` is 1.

    The step is multiplied by ``Contributions.scale``, which is 1 unless the task asks otherwise.
    """

    server_lr: float = 1.0
    weighted: bool = True

    def __post_init__(self) -> None:
        """Refuse a learning rate that is no positive number."""
        if not 0 < self.server_lr <= 100:  # noqa: PLR2004
            message = f"server_lr: {self.server_lr}: must be above 0 and at most 100"
            raise ValueError(message)

    def init(self, model: F32) -> State:  # noqa: ARG002
        """Return the empty state: nothing is kept between rounds."""
        return {}

    def apply(self, state: State, contributions: Contributions) -> tuple[State, F32]:
        """Return the new model; sums run in float64, in device order."""
        total = np.zeros(contributions.model.shape, dtype=np.float64)
        weights = [float(one.num_examples) if self.weighted else 1.0 for one in contributions]
        contributions.add_into(total, weights)
        step = contributions.scale * self.server_lr / sum(weights)
        return state, _move(contributions.model, total, step)


def _move(model: F32, total: F64, scale: float) -> F32:
    """Return ``model + scale * total`` in the memory of ``total``, which is used up.

    Values are written behind those still to be read, so a large model needs no further vector.
    """
    moved = total.view(np.float32)[: total.size]
    for start in range(0, total.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        moved[block] = model[block] + scale * total[block]
    return moved
