"""The steps of one job in torch: SGD with momentum or Adam, FedProx, clipping.

FedProx: T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020,
https://arxiv.org/abs/1812.06127: the objective gains ``mu / 2 * ||w - w_global||^2``.
This module imports torch; only ``torch_trainer`` imports it, when a job begins.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from device_agent.service.ports import TrainingError
from device_agent.training.torch_optimizers import make_optimizer
from learning.data.dataset import Dataset
from schemas.tasks import Training

F32 = NDArray[np.float32]


@dataclass(slots=True)
class Tally:
    """Sums over the examples that were trained on; an example counts once a pass."""

    examples: int = 0
    loss: float = 0.0
    correct: int = 0

    def metrics(self) -> dict[str, float]:
        """Return the mean loss and the accuracy, as measured while training."""
        seen = max(1, self.examples)
        return {"loss": self.loss / seen, "accuracy": self.correct / seen}


@dataclass(frozen=True, slots=True)
class TorchJob:
    """One job's module and what it is trained on.

    Attributes:
        module: Holds the global parameters; trained in place.
        data: Where the batches point to.
        training: Optimizer and its settings.
        reference: The global parameters by name, for FedProx.
    """

    module: nn.Module
    data: Dataset
    training: Training
    reference: Mapping[str, F32]

    def run(
        self, batches: Iterable[NDArray[np.int64]], after_step: Callable[[int], None]
    ) -> Tally:
        """Take one step for each batch of indices.

        Args:
            batches: Indices of each step's examples.
            after_step: Called with the number of finished steps; may raise to stop.

        Raises:
            TrainingError: The loss is not finite, or nothing can be trained.
        """
        self.module.train()
        optimizer = make_optimizer(self.module, self.training)
        tally = Tally()
        for step, indices in enumerate(batches, start=1):
            self.module.zero_grad(set_to_none=False)
            self._gradients(indices, step, tally)
            optimizer.step()
            after_step(step)
        return tally

    def _gradients(self, indices: NDArray[np.int64], step: int, tally: Tally) -> None:
        x, y = torch.from_numpy(self.data.x[indices]), torch.from_numpy(self.data.y[indices])
        logits = self.module(x)
        loss = nn.functional.cross_entropy(logits, y)
        _count(tally, logits, y, _finite(loss, step, self.training))
        loss.backward()  # type: ignore[no-untyped-call]
        if self.training.proximal_mu:
            _add_proximal_gradient(self.module, self.reference, self.training.proximal_mu)
        if self.training.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.training.gradient_clip_norm)


def _finite(loss: torch.Tensor, step: int, training: Training) -> float:
    value = float(loss.item())
    if not math.isfinite(value):
        message = (
            f"the loss is {value} at step {step}; "
            f"lower learning_rate ({training.learning_rate:g}) or set gradient_clip_norm"
        )
        raise TrainingError(message)
    return value


def _count(tally: Tally, logits: torch.Tensor, y: torch.Tensor, loss: float) -> None:
    tally.examples += len(y)
    tally.loss += loss * len(y)
    tally.correct += int((logits.detach().argmax(dim=1) == y).sum())


def _add_proximal_gradient(
    module: nn.Module, reference: Mapping[str, F32], proximal_mu: float
) -> None:
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            # In NumPy: torch warns of arrays that it could write to but must not.
            gradient, now = parameter.grad.numpy(), parameter.detach().numpy()
            gradient += np.float32(proximal_mu) * (now - reference[name])
