"""Fully connected models: softmax regression and the multilayer perceptron.

With ``hidden=(200, 200)`` it is the "2NN" of H. B. McMahan et al., "Communication-Efficient
Learning of Deep Networks from Decentralized Data", AISTATS 2017, https://arxiv.org/abs/1602.05629.
"""

import math
from itertools import pairwise

from torch import nn

from learning.models.initialization import initialize


def softmax(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return softmax regression on the flattened example."""
    return mlp(input_shape, classes, hidden=())


def mlp(
    input_shape: tuple[int, ...], classes: int, *, hidden: tuple[int, ...] = (200,)
) -> nn.Module:
    """Return layers of ``hidden`` widths with ReLU between them, on the flattened example."""
    widths = (math.prod(input_shape), *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(widths[-1], classes))
    initialize(model)
    return model
