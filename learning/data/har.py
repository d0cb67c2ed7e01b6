"""Windows of inertial sensors, for the recognition of human activities.

The layout of M. Matey-Sanz, S. Casteleyn, C. Granell, "Dataset of inertial measurements of
smartphones and smartwatches for human activity recognition", Data in Brief 2023, 109809: one
``.npz`` a device, ``x`` float32 ``(n, channels, length)``, ``y`` int64 ``(n,)``.
"""

from learning.data.argument import Argument
from learning.data.dataset import DataError, Dataset, concatenate
from learning.data.npz import read_examples

ACTIVITIES = ("SEATED", "STANDING_UP", "WALKING", "TURNING", "SITTING_DOWN")
_WINDOW_DIMENSIONS = 3
_MAX_CLASSES = 1 << 20


def load_har(argument: str, train: bool) -> Dataset:  # noqa: ARG001, FBT001
    """Return the windows of one device, or of several, as ``(n, channels, length)``.

    Each file's channels are standardized by that file's own mean and deviation, so that no
    statistic leaves a device, and so that held-out devices are treated as devices treat
    themselves.

    Args:
        argument: ``FILE_OR_DIRECTORY[,classes=5]``, or a pattern such as ``har/s1*.npz``.
        train: No difference: hold whole devices out instead.

    Raises:
        DataError: A file does not hold windows, or two differ in shape.
    """
    parsed = Argument.parse(argument, ("classes",))
    classes = parsed.integer("classes", len(ACTIVITIES), 1, _MAX_CLASSES)
    parts = []
    for path in parsed.files(".npz"):
        x, y = read_examples(path)
        if x.ndim != _WINDOW_DIMENSIONS:
            message = f"{path}: x of shape {x.shape}, windows are (n, channels, length)"
            raise DataError(message)
        parts.append(Dataset(x, y, classes, "har").standardized())
    return concatenate(parts) if len(parts) > 1 else parts[0]
