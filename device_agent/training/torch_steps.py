"""The steps of one job in torch: losses, what is frozen, FedProx, clipping, the optimizer.

FedProx: T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020,
https://arxiv.org/abs/1812.06127: the objective gains ``mu / 2 * ||w - w_global||^2``.
This module imports torch; only ``torch_trainer`` imports it, when a job begins.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from device_agent.training.steps import Tally, targets
from device_agent.training.torch_optimizers import make_optimizer
from learning.data.dataset import Dataset
from schemas.tasks import Training

F32 = NDArray[np.float32]


class TorchJob:
    """One job's module and what it is trained on."""

    def __init__(
        self,
        module: nn.Module,
        data: Dataset,
        training: Training,
        reference: Mapping[str, F32],
        state: F32 | None = None,
    ) -> None:
        """Freeze what is frozen and make the optimizer.

        Args:
            module: Holds the global parameters; trained in place.
            data: Where the batches point to.
            training: Optimizer, loss and their settings.
            reference: The global parameters that travel, by name.
            state: The optimizer's, from the task's round before.

        Raises:
            TrainingError: Nothing can be trained.
        """
        self._module = module
        self._data = data
        self._training = training
        self._reference = reference
        _freeze(module, training.frozen)
        module.train()
        _rest(module, reference.keys())
        self._optimizer = make_optimizer(module, training)
        if state is not None:
            self._optimizer.restore(state)

    def run(
        self, batches: Iterable[NDArray[np.int64]], after_step: Callable[[int], None]
    ) -> Tally:
        """Take one step for each batch of indices.

        Args:
            batches: Indices of each step's examples.
            after_step: Called with the number of finished steps; may raise to stop.

        Raises:
            TrainingError: The loss is not finite.
        """
        tally = Tally(self._training)
        for step, indices in enumerate(batches, start=1):
            self._module.zero_grad(set_to_none=False)
            self._gradients(indices, step, tally)
            self._optimizer.step()
            after_step(step)
        return tally

    def state(self) -> F32 | None:
        """Return the optimizer's state where the task keeps it and there is one."""
        return self._optimizer.state() if self._training.keep_state else None

    def _gradients(self, indices: NDArray[np.int64], step: int, tally: Tally) -> None:
        x, training = torch.from_numpy(self._data.x[indices]), self._training
        logits = self._module(x)
        y = self._labels(indices, logits)
        loss = _LOSSES[training.loss](logits, y)
        tally.count(step, len(indices), float(loss.item()), _right(training, logits.detach(), y))
        loss.backward()  # type: ignore[no-untyped-call]
        if training.proximal_mu:
            _add_proximal_gradient(self._module, self._reference, training.proximal_mu)
        if training.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self._module.parameters(), training.gradient_clip_norm)

    def _labels(self, indices: NDArray[np.int64], logits: torch.Tensor) -> torch.Tensor:
        y = self._data.y[indices]
        if self._training.loss == "cross_entropy":
            return torch.from_numpy(y)
        return torch.from_numpy(targets(y, self._data.classes, tuple(logits.shape[1:])))


_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "bce": nn.functional.binary_cross_entropy_with_logits,
    "mse": nn.functional.mse_loss,
    "huber": nn.functional.huber_loss,
}


def _right(training: Training, logits: torch.Tensor, y: torch.Tensor) -> int:
    """Return how many examples were right; 0 for losses without classes."""
    if training.loss == "cross_entropy":
        return int((logits.argmax(dim=1) == y).sum())
    if training.loss == "bce":
        same = (logits > 0) == (y > 0.5)  # noqa: PLR2004 - between the two sides
        return int(same.reshape(len(y), -1).all(dim=1).sum())
    return 0


def _freeze(module: nn.Module, patterns: Iterable[str]) -> None:
    wanted = tuple(patterns)
    for name, parameter in module.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in wanted):
            parameter.requires_grad = False


def _rest(module: nn.Module, travelling: Collection[str]) -> None:
    """Keep a layer as it is whose running statistics do not travel: they are frozen too."""
    for name, layer in module.named_modules():
        own = dict(layer.named_buffers(recurse=False))
        if "running_mean" in own and f"{name}.running_mean".lstrip(".") not in travelling:
            layer.eval()


def _add_proximal_gradient(
    module: nn.Module, reference: Mapping[str, F32], proximal_mu: float
) -> None:
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and parameter.requires_grad:
            # In NumPy: torch warns of arrays that it could write to but must not.
            gradient, now = parameter.grad.numpy(), parameter.detach().numpy()
            gradient += np.float32(proximal_mu) * (now - reference[name])
