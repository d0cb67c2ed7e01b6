"""The optimizers of a local step: SGD with momentum, Adam and AdamW, as torch defines them.

They are written out because making one of torch.optim imports torch's compiler with it, which
costs a device more CPU time and memory than torch itself; a test holds them to torch.optim.
"""

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from device_agent.service.ports import TrainingError
from schemas.tasks import Training

F32 = NDArray[np.float32]

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Optimizer(Protocol):
    """Moves parameters along their gradients."""

    def step(self) -> None:
        """Take one step with the gradients that the parameters have now."""

    def state(self) -> F32 | None:
        """Return what goes from step to step as one vector, or None when nothing does."""

    def restore(self, state: F32) -> None:
        """Go on from a state; one of another size changes nothing."""


class Sgd:
    """``v = momentum * v + gradient; w = w - rate * v``, or Nesterov's form of it.

    Polyak 1964 in the form of Sutskever et al., "On the importance of initialization and momentum
    in deep learning", ICML 2013, with the rate outside of the velocity, as in torch.optim.SGD.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rate: float,
        momentum: float,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
    ) -> None:
        self._parameters = list(parameters)
        self._rate = rate
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._nesterov = nesterov
        self._velocities = [torch.zeros_like(p) for p in self._parameters] if momentum else []

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        for index, parameter in enumerate(self._parameters):
            direction = _gradient(parameter, self._weight_decay)
            if direction is None:
                continue
            if self._velocities:
                velocity = self._velocities[index].mul_(self._momentum).add_(direction)
                ahead = (
                    direction.add(velocity, alpha=self._momentum) if self._nesterov else velocity
                )
                direction = ahead
            parameter.add_(direction, alpha=-self._rate)

    def state(self) -> F32 | None:
        """Return the velocities, if there is momentum."""
        return _joined(self._velocities) if self._velocities else None

    def restore(self, state: F32) -> None:
        """Go on with these velocities."""
        _fill(self._velocities, state)


class Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    https://arxiv.org/abs/1412.6980, with its defaults for the decay rates and epsilon. Decoupled:
    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        rate: float,
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
    ) -> None:
        self._parameters = list(parameters)
        self._rate = rate
        self._added_decay = 0.0 if decoupled else weight_decay
        self._kept = 1 - rate * weight_decay if decoupled else 1.0
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in _BETAS)
        for index, parameter in enumerate(self._parameters):
            gradient = _gradient(parameter, self._added_decay)
            if gradient is None:
                continue
            parameter.mul_(self._kept)
            mean = self._means[index].lerp_(gradient, 1 - _BETAS[0])
            square = self._squares[index].mul_(_BETAS[1])
            square.addcmul_(gradient, gradient, value=1 - _BETAS[1])
            scale = (square.sqrt() / math.sqrt(second)).add_(_EPSILON)
            parameter.addcdiv_(mean, scale, value=-self._rate / first)

    def state(self) -> F32 | None:
        """Return means, squares and the number of steps."""
        return _joined([*self._means, *self._squares, torch.tensor([float(self._steps)])])

    def restore(self, state: F32) -> None:
        """Go on with these means, squares and number of steps."""
        steps = torch.zeros(1)
        if _fill([*self._means, *self._squares, steps], state):
            self._steps = int(steps.item())


def make_optimizer(module: nn.Module, training: Training) -> Optimizer:
    """Return the optimizer that a task asks for, over what can be trained of ``module``.

    Raises:
        TrainingError: Nothing can be trained.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        message = "the model has no parameter that can be trained"
        raise TrainingError(message)
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer != "sgd":
        return Adam(trained, rate, decay, decoupled=training.optimizer == "adamw")
    return Sgd(trained, rate, training.momentum, decay, nesterov=training.nesterov)


def _gradient(parameter: nn.Parameter, weight_decay: float) -> torch.Tensor | None:
    gradient = parameter.grad
    if gradient is None or not weight_decay:
        return gradient
    return gradient.add(parameter, alpha=weight_decay)


def _joined(tensors: Iterable[torch.Tensor]) -> F32:
    joined: F32 = torch.cat([tensor.reshape(-1) for tensor in tensors]).numpy()
    return joined


def _fill(tensors: list[torch.Tensor], state: F32) -> bool:
    """Copy a vector into tensors, one after another; tell whether it fits them."""
    if len(state) != sum(tensor.numel() for tensor in tensors):
        return False
    left = torch.from_numpy(state.copy())
    for tensor in tensors:
        tensor.copy_(left[: tensor.numel()].reshape(tensor.shape))
        left = left[tensor.numel() :]
    return True
