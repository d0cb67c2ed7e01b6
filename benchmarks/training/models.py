"""The torch models whose steps are timed, and which old runtimes must train.

They stand for what people train on devices; none is tuned. torch is imported with this module.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from learning.models.lenet5 import LeNet5

_IMAGE = (3, 32, 32)
_CLASSES = 10
_WORDS = 100
_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """One model and what it takes.

    Attributes:
        title: Its name in tables.
        build: Returns a new module.
        shape: One example.
        classes: Of the labels.
        words: Examples are whole numbers below it; 0 for real numbers.
        target: The ratio to torch's step time that is aimed at; None without an aim.
    """

    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int = _CLASSES
    words: int = 0
    target: float | None = None

    def batch(self, examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 examples ``(examples, *shape)`` and int64 labels."""
        rng = np.random.default_rng(seed)
        size = (examples, *self.shape)
        drawn = rng.integers(0, self.words, size) if self.words else rng.standard_normal(size)
        return drawn.astype(np.float32), rng.integers(0, self.classes, examples)

    def module(self) -> nn.Module:
        """Return the module as every program of a benchmark sees it, drawn from one seed."""
        torch.manual_seed(1)
        return self.build()


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalization, and a short cut (He et al., CVPR 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.short_cut = nn.Sequential()
        if stride != 1 or before != after:
            self.short_cut.append(nn.Conv2d(before, after, 1, stride, bias=False))
            self.short_cut.append(nn.BatchNorm2d(after))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(n, after, h / stride, w / stride)``."""
        return torch.relu(self.body(images) + self.short_cut(images))


def resnet(stem: int, *blocks: tuple[int, int]) -> nn.Module:
    """Return a residual net of ``(channels, stride)`` blocks for images ``(3, 32, 32)``."""
    parts: list[nn.Module] = [
        nn.Conv2d(3, stem, 3, 1, 1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(),
    ]
    channels = stem
    for after, stride in blocks:
        parts.append(ResidualBlock(channels, after, stride))
        channels = after
    return nn.Sequential(*parts, *_head(channels))


def resnet18() -> nn.Module:
    """Return ResNet-18 with the stem for 32x32 images: 11.2 million parameters."""
    return resnet(64, (64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


def mobilenet() -> nn.Module:
    """Return depthwise-separable convolutions (Howard et al., 2017), with ReLU6."""
    parts = _normalized(nn.Conv2d(3, 32, 3, 1, 1, bias=False), 32)
    channels = 32
    for after, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        parts += _normalized(depthwise, channels)
        parts += _normalized(nn.Conv2d(channels, after, 1, bias=False), after)
        channels = after
    return nn.Sequential(*parts, *_head(channels))


def _normalized(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU6()]


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, _CLASSES)]


def mlp() -> nn.Module:
    """Return four dense layers with tanh, sigmoid and GELU."""
    return nn.Sequential(
        nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 32), nn.Sigmoid(),
        nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 5),
    )  # fmt: skip


def batch_norm_cnn() -> nn.Module:
    """Return a small CNN: batch normalization, one depthwise layer, overlapping pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.Conv2d(32, 48, 1),
        nn.ReLU6(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(768, _CLASSES),
    )  # fmt: skip


class Attention(nn.Module):
    """Self-attention with 4 heads, written out."""

    heads = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, sequence: Tensor) -> Tensor:
        """Return ``(n, length, width)``."""
        count, length, width = sequence.shape
        parts = self.joint(sequence).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        mixed = (torch.softmax(scores, -1) @ value).transpose(1, 2)
        attended: Tensor = self.out(mixed.reshape(count, length, width))
        return attended


class Transformer(nn.Module):
    """One encoder block over word embeddings; words come as float32 whole numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_WORDS, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, _LENGTH, width))
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width)
        self.dense_norm, self.final_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, words: Tensor) -> Tensor:
        """Return logits ``(n, 4)``."""
        sequence = self.embedding(words.long()) + self.position
        sequence = sequence + self.attention(self.attention_norm(sequence))
        sequence = sequence + self.dense(self.dense_norm(sequence))
        logits: Tensor = self.head(self.final_norm(sequence).mean(1))
        return logits


class Lstm(nn.Module):
    """Two LSTM layers over a sequence of fixed length."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(6, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, sequence: Tensor) -> Tensor:
        """Return the logits at the sequence's end, ``(n, 5)``."""
        logits: Tensor = self.head(self.recurrent(sequence)[0][:, -1])
        return logits


#: Those of the table of step times; the aims are ratios to torch eager.
TIMED = {
    "lenet5": Subject("LeNet-5", lambda: LeNet5((1, 28, 28), _CLASSES), (1, 28, 28), target=0.85),
    "mlp": Subject("MLP", mlp, (20,), classes=5, target=0.4),
    "cnn-bn": Subject("CNN with batch norm", batch_norm_cnn, _IMAGE, target=0.85),
    "tiny-resnet": Subject(
        "tiny ResNet", lambda: resnet(16, (16, 1), (32, 2)), _IMAGE, target=1.05
    ),
    "transformer": Subject(
        "transformer d128", lambda: Transformer(128), (_LENGTH,), 4, _WORDS, target=0.65
    ),
    "mobilenet": Subject("MobileNet-like", mobilenet, _IMAGE, target=1.2),
    "resnet18": Subject("ResNet-18 32x32", resnet18, _IMAGE, target=1.1),
}

#: Those that every supported runtime must train alike.
PORTABLE = {
    "lenet5": TIMED["lenet5"],
    "cnn-bn": TIMED["cnn-bn"],
    "transformer": Subject("transformer", lambda: Transformer(32), (_LENGTH,), 4, _WORDS),
    "lstm": Subject("LSTM", Lstm, (12, 6), classes=5),
}
