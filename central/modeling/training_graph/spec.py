"""What one step of local training is: loss, optimizer, what is frozen, what else it needs."""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

LossName = Literal["cross_entropy", "bce", "mse", "huber", "model"]
OptimizerName = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One training step; what a round may change (rate, clipping norm) is an input of the graph.

    Attributes:
        loss: ``cross_entropy`` (softmax, integer labels), ``bce`` (binary, on logits), ``mse``,
            ``huber`` (threshold 1), or ``model``: the forward graph's own output ``loss``.
        optimizer: As torch.optim defines it; Adam's decay rates and epsilon are its defaults.
        momentum: Of ``sgd``, at least 0 and below 1.
        nesterov: Nesterov's form of momentum.
        weight_decay: At least 0; decoupled for ``adamw``, added to the gradient otherwise.
        has_proximal: Whether the loss has FedProx's term ``mu / 2 * |parameters - reference|^2``.
        has_clipping: Whether the gradient is scaled down to a norm that is an input.
        frozen: Patterns of parameter names, as in ``fnmatch``; they stay constants.

    Raises:
        ValueError: A value is out of its range, or two of them do not go together.
    """

    loss: LossName = "cross_entropy"
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    has_proximal: bool = False
    has_clipping: bool = False
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        _check_choice("loss", self.loss, get_args(LossName))
        _check_choice("optimizer", self.optimizer, get_args(OptimizerName))
        if not 0 <= self.momentum < 1:
            message = f"momentum: {self.momentum}, at least 0 and less than 1 is allowed"
            raise ValueError(message)
        if not 0 <= self.weight_decay < math.inf:
            message = f"weight_decay: {self.weight_decay}, a finite number from 0 is allowed"
            raise ValueError(message)
        if self.momentum and self.optimizer != "sgd":
            message = f"momentum: only sgd has it; set it to 0 for {self.optimizer}"
            raise ValueError(message)
        if self.nesterov and not self.momentum:
            message = "nesterov: needs a momentum above 0"
            raise ValueError(message)

    def is_frozen(self, name: str) -> bool:
        """Tell whether a parameter's name matches one of the patterns."""
        return any(fnmatchcase(name, pattern) for pattern in self.frozen)

    def state_size(self, trainable: int) -> int:
        """Return how many float32 values the optimizer keeps for so many trainable ones."""
        if self.optimizer == "sgd":
            return trainable if self.momentum else 0
        return 2 * trainable + 1


def _check_choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        message = f"{field}: {value!r}, allowed are {', '.join(allowed)}"
        raise ValueError(message)
