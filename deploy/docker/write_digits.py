"""Write the digits' training and held-out parts to a folder, as files for the source ``npz``."""

import sys
from pathlib import Path

import numpy as np

from learning.data.sources import load


def write(folder: Path) -> None:
    """Write ``train.npz`` and ``held-out.npz``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, is_training in (("train", True), ("held-out", False)):
        dataset = load("digits", train=is_training)
        np.savez_compressed(folder / f"{name}.npz", x=dataset.x, y=dataset.y)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
