"""Arrays in NumPy's ``.npz``: ``x`` float32 ``(n, ...)`` and ``y`` integer ``(n,)``.

Every array's header is compared with its size in the archive before NumPy allocates anything;
pickled objects are never loaded.
"""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from learning.data.argument import Argument, check_bytes
from learning.data.dataset import DataError, Dataset, concatenate

_OPTIONS = ("name", "classes", "standardize")
_MAX_CLASSES = 1 << 20


def load_npz(argument: str, train: bool) -> Dataset:  # noqa: ARG001, FBT001
    """Return the examples of one or several files.

    Args:
        argument: ``FILE_OR_DIRECTORY[,name=npz][,classes=K][,standardize=no]``. Without
            ``classes`` it is the largest label plus 1; give it where a device may lack the
            last class. ``standardize=yes`` scales each file's channels by their own statistics.
        train: No difference: a file has no part of its own that is held out.

    Raises:
        DataError: A file is not what is described above.
    """
    parsed = Argument.parse(argument, _OPTIONS)
    paths = parsed.files(".npz")
    arrays = [read_examples(path) for path in paths]
    largest = max(int(y.max(initial=-1)) for _, y in arrays) + 1
    classes = parsed.integer("classes", max(largest, 1), 1, _MAX_CLASSES)
    name = parsed.options.get("name", "npz")
    parts = [Dataset(x, y, classes, name) for x, y in arrays]
    if parsed.flag("standardize", default=False):
        parts = [part.standardized() for part in parts]
    return concatenate(parts) if len(parts) > 1 else parts[0]


def read_examples(
    path: Path,
) -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    np.ndarray[tuple[int, ...], np.dtype[np.int64]],
]:
    """Return ``x`` and ``y`` of one file.

    Raises:
        DataError: An array is absent, too large, of another type, or its header lies.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in ("x", "y"):
                _check_member(archive, path, name)
        with np.load(path, allow_pickle=False) as loaded:
            x, y = loaded["x"], loaded["y"]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        message = f"{path}: {error}"
        raise DataError(message) from error
    if not np.issubdtype(y.dtype, np.integer):
        message = f"{path}: y is {y.dtype}, labels must be integers"
        raise DataError(message)
    return x, y.astype(np.int64, copy=False)


def _check_member(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        message = f"there is no array {name!r} in it; it has {', '.join(archive.namelist())}"
        raise DataError(message) from error
    check_bytes(f"{path}: {name}", info.file_size)
    with archive.open(info) as stream:
        shape, dtype = _npy_header(stream)
        announced = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or announced != info.file_size - stream.tell():
            message = f"{name}: {shape} of {dtype} does not match its {info.file_size} bytes"
            raise DataError(message)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return tuple(shape), dtype
