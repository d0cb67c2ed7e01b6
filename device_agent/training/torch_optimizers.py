"""The optimizers of a local step: SGD with momentum, and Adam, as torch defines them.

They are written out because making one of torch.optim imports torch's compiler with it, which
costs a device more CPU time and memory than torch itself; a test holds them to torch.optim.
"""

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from device_agent.service.ports import TrainingError
from schemas.tasks import Training

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Optimizer(Protocol):
    """Moves parameters along their gradients."""

    def step(self) -> None:
        """Take one step with the gradients that the parameters have now."""


class Sgd:
    """``v = momentum * v + gradient; w = w - rate * v``.

    Polyak 1964 in the form of Sutskever et al., "On the importance of initialization and momentum
    in deep learning", ICML 2013, with the rate outside of the velocity, as in torch.optim.SGD.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, momentum: float) -> None:
        self._parameters = list(parameters)
        self._rate = rate
        self._momentum = momentum
        self._velocities = [torch.zeros_like(p) for p in self._parameters] if momentum else []

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        for index, parameter in enumerate(self._parameters):
            direction = parameter.grad
            if direction is None:
                continue
            if self._velocities:
                direction = self._velocities[index].mul_(self._momentum).add_(direction)
            parameter.add_(direction, alpha=-self._rate)


class Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    https://arxiv.org/abs/1412.6980, with its defaults for the decay rates and epsilon.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        self._parameters = list(parameters)
        self._rate = rate
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Take one step."""
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in _BETAS)
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                continue
            mean = self._means[index].lerp_(parameter.grad, 1 - _BETAS[0])
            square = self._squares[index].mul_(_BETAS[1])
            square.addcmul_(parameter.grad, parameter.grad, value=1 - _BETAS[1])
            scale = (square.sqrt() / math.sqrt(second)).add_(_EPSILON)
            parameter.addcdiv_(mean, scale, value=-self._rate / first)


def make_optimizer(module: nn.Module, training: Training) -> Optimizer:
    """Return the optimizer that a task asks for, over what can be trained of ``module``.

    Raises:
        TrainingError: Nothing can be trained.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained:
        message = "the model has no parameter that can be trained"
        raise TrainingError(message)
    if training.optimizer == "adam":
        return Adam(trained, training.learning_rate)
    return Sgd(trained, training.learning_rate, training.momentum)
