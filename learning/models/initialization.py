"""Initial weights that keep the scale of signals through ReLU.

K. He et al., "Delving Deep into Rectifiers", ICCV 2015, https://arxiv.org/abs/1502.01852,
section 2.2. With torch's own smaller default a deep model of the fleet stays near chance for
its first rounds.
"""

from torch import nn


def initialize(module: nn.Module) -> None:
    """Draw every weight of ``module`` anew, by torch's generator, and set the biases to 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
