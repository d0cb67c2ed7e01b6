"""Small torch models of every kind that a training graph must handle."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Kind:
    """How to make a model and its data; ``tokens`` is the vocabulary of integer inputs."""

    make: object
    shape: tuple[int, ...]
    classes: int
    tokens: int = 0

    def module(self, seed=0):
        torch.manual_seed(seed)
        return self.make()

    def batch(self, size, seed=0):
        rng = torch.Generator().manual_seed(seed)
        if self.tokens:
            x = torch.randint(0, self.tokens, (size, *self.shape), generator=rng)
        else:
            x = torch.randn(size, *self.shape, generator=rng)
        return x, torch.randint(0, self.classes, (size,), generator=rng)


def softmax_regression():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def mlp():
    return nn.Sequential(
        *(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 24), nn.Sigmoid()),
        *(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 5)),
    )


def lenet5():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def cnn_with_batch_norm():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)),
        *(nn.BatchNorm2d(16), nn.ReLU6(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)),
    )


def batch_norm(channels):
    return nn.BatchNorm2d(channels)


def group_norm(channels):
    return nn.GroupNorm(4, channels)


class ResidualBlock(nn.Module):
    """He et al., CVPR 2016, figure 5 on the left."""

    def __init__(self, inside, outside, stride, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = norm(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside)
            )

    def forward(self, x):
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def residual_stack(norm):
    """The blocks of ResNet-18 at an eighth of its width."""
    layers = [nn.Conv2d(3, 8, 3, 1, 1, bias=False), norm(8), nn.ReLU()]
    inside = 8
    for outside, stride in ((8, 1), (16, 2), (32, 2), (64, 2)):
        layers.append(ResidualBlock(inside, outside, stride, norm))
        layers.append(ResidualBlock(outside, outside, 1, norm))
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def depthwise_separable():
    def block(inside, outside, stride):
        return (
            *(nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False),),
            *(nn.BatchNorm2d(inside), nn.ReLU6(), nn.Conv2d(inside, outside, 1, bias=False)),
            *(nn.BatchNorm2d(outside), nn.ReLU6()),
        )

    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
        *(*block(8, 16, 1), *block(16, 32, 2), *block(32, 32, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


class TransformerBlock(nn.Module):
    """Token and position embedding, one pre-norm encoder block, mean over the positions."""

    def __init__(self, tokens=50, length=12, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.token = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 4)

    def attend(self, x):
        batch, length, width = x.shape
        split = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)
        return self.out(mixed.reshape(batch, length, width))

    def forward(self, x):
        x = self.token(x) + self.position
        x = x + self.attend(self.norm1(x))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """Embedding, two recurrent layers of a fixed length, the last position's output."""

    def __init__(self, cell):
        super().__init__()
        self.token = nn.Embedding(20, 6)
        self.layers = cell(6, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.layers(self.token(x))[0][:, -1])


KINDS = {
    "softmax regression": Kind(softmax_regression, (8, 8), 10),
    "mlp": Kind(mlp, (20,), 5),
    "lenet5": Kind(lenet5, (1, 28, 28), 10),
    "cnn with batch norm": Kind(cnn_with_batch_norm, (3, 16, 16), 10),
    "residual stack, group norm": Kind(partial(residual_stack, group_norm), (3, 16, 16), 10),
    "residual stack, batch norm": Kind(partial(residual_stack, batch_norm), (3, 16, 16), 10),
    "depthwise separable": Kind(depthwise_separable, (3, 16, 16), 10),
    "transformer block": Kind(TransformerBlock, (12,), 4, tokens=50),
    "lstm": Kind(partial(Recurrent, nn.LSTM), (8,), 5, tokens=20),
    "gru": Kind(partial(Recurrent, nn.GRU), (8,), 5, tokens=20),
}
