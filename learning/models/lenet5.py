"""LeNet-5 with ReLU and maximum pooling: 61,706 parameters for ten classes.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
Recognition", Proceedings of the IEEE 86(11), 1998, section II.B.
"""

from torch import Tensor, nn

from learning.models.initialization import initialize

_SIDE = 32
_FEATURES = 16 * 5 * 5


class LeNet5(nn.Module):
    """LeNet-5 for images ``(1, h, w)`` of at most 28x28, centred on its 32x32 field."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        _, height, width = input_shape
        rows, columns = _SIDE - height, _SIDE - width
        self.field = nn.ZeroPad2d(
            (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        )
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(_FEATURES, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of images ``(n, 1, h, w)``."""
        logits: Tensor = self.classifier(self.features(self.field(images)))
        return logits
