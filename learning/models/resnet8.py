"""A small residual network for images, with GroupNorm in the place of batch normalization.

K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385, section 4.2 with n = 1: three stages of one block each, eight
layers with weights. The shortcut of a stage that changes the shape is their option B.
GroupNorm: Y. Wu and K. He, ECCV 2018, https://arxiv.org/abs/1803.08494; the statistics of a batch
on one device are not those of the fleet (see ``cnn1d``).
"""

from torch import Tensor, nn

from learning.models.initialization import initialize

_GROUPS = 4
_STAGES = 3


class ResNet8(nn.Module):
    """Eight layers for images ``(c, h, w)``: 78,042 parameters for CIFAR-10 at width 16."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, *, width: int = 16) -> None:
        super().__init__()
        widths = [width << stage for stage in range(_STAGES)]
        self.stem = nn.Sequential(_convolution(input_shape[0], width), _norm(width), nn.ReLU())
        self.stages = nn.Sequential(
            Block(width, widths[0], stride=1),
            *(Block(before, 2 * before, stride=2) for before in widths[:-1]),
        )
        self.classifier = nn.Linear(widths[-1], classes)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of images ``(n, c, h, w)``."""
        logits: Tensor = self.classifier(self.stages(self.stem(images)).mean(dim=(2, 3)))
        return logits


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(before, after, stride),
            _norm(after),
            nn.ReLU(),
            _convolution(after, after),
            _norm(after),
        )
        self.shortcut = (
            nn.Identity()
            if before == after and stride == 1
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), _norm(after))
        )
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the block's width, at its stride."""
        added: Tensor = self.relu(self.body(features) + self.shortcut(features))
        return added


def _convolution(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS if channels % _GROUPS == 0 else 1, channels)
