"""The 8x8 handwritten digits that scikit-learn carries, read without importing scikit-learn.

Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI 1998,
https://doi.org/10.24432/C50P49 (the test part, 1,797 examples). One example in five of each
class is held out, always the same ones.
"""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from learning.data.dataset import F32, I64, DataError, Dataset

_CLASSES = 10
_SIDE = 8
_INK = 16.0
_HELD_OUT = 0.2
_SPLIT_SEED = 1998


def load_digits(argument: str, train: bool) -> Dataset:  # noqa: FBT001
    """Return the digits: ``x`` of shape ``(n, 1, 8, 8)`` in [0, 1], ten classes.

    Args:
        argument: Must be empty.
        train: The training part (80 %), else what is held out.

    Raises:
        DataError: scikit-learn is not installed, or its file is not the one known.
    """
    if argument:
        message = f"digits takes no argument, got {argument!r}"
        raise DataError(message)
    table = _read(_file())
    x = table[:, :-1].reshape(-1, 1, _SIDE, _SIDE) / np.float32(_INK)
    y = table[:, -1].astype(np.int64)
    held_out = _held_out(y)
    chosen = np.flatnonzero(~held_out if train else held_out)
    return Dataset(x, y, _CLASSES, "digits").subset(chosen)


def _file() -> Path:
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    message = "scikit-learn carries these examples; install it: pip install 'scikit-learn>=1.4'"
    raise DataError(message)


def _read(path: Path) -> F32:
    with gzip.open(path, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32, ndmin=2)
    if table.shape[1] != _SIDE * _SIDE + 1:
        message = f"{path}: {table.shape[1]} columns, {_SIDE * _SIDE + 1} are expected"
        raise DataError(message)
    return table


def _held_out(y: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    rng = np.random.default_rng(_SPLIT_SEED)
    mask = np.zeros(len(y), dtype=np.bool_)
    for label in range(_CLASSES):
        members = rng.permutation(np.flatnonzero(y == label))
        mask[members[: round(_HELD_OUT * len(members))]] = True
    return mask
