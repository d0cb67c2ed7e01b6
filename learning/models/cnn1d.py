"""A small convolutional network for windows of sensors.

It normalizes with groups of channels, not with batches: the statistics of a batch on one device
are not those of the fleet (K. Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine
Learning", ICML 2020, https://arxiv.org/abs/1910.00189, section 5).
"""

from torch import Tensor, nn

from learning.models.initialization import initialize

_KERNEL = 5
_GROUPS = 4


class Cnn1d(nn.Module):
    """Three convolutions over time and the mean over time, for windows ``(channels, length)``."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, *, width: int = 32) -> None:
        super().__init__()
        channels, _ = input_shape
        self.features = nn.Sequential(
            *_block(channels, width),
            nn.MaxPool1d(2),
            *_block(width, 2 * width),
            nn.MaxPool1d(2),
            *_block(2 * width, 2 * width),
        )
        self.classifier = nn.Linear(2 * width, classes)
        initialize(self)

    def forward(self, windows: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of windows ``(n, channels, length)``."""
        logits: Tensor = self.classifier(self.features(windows).mean(dim=2))
        return logits


def _block(before: int, after: int) -> tuple[nn.Module, ...]:
    groups = _GROUPS if after % _GROUPS == 0 else 1
    return (
        nn.Conv1d(before, after, kernel_size=_KERNEL, padding=_KERNEL // 2),
        nn.GroupNorm(groups, after),
        nn.ReLU(),
    )
