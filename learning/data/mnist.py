"""Images and labels in the IDX format of the MNIST database.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998. An IDX
file is ``00 00 | type | dimensions``, one big-endian uint32 per dimension, then the values.
Only unsigned bytes (type 08) are read; nothing is allocated before header and limit agree.
"""

import gzip
import math
import struct
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from learning.data.argument import Argument, check_bytes
from learning.data.dataset import DataError, Dataset

_UNSIGNED_BYTE = 8
_CLASSES = 10
_WHITE = 255.0


def load_mnist(argument: str, train: bool) -> Dataset:  # noqa: FBT001
    """Return the images of a directory: ``x`` of shape ``(n, 1, h, w)`` in [0, 1].

    Args:
        argument: Directory of ``train-images-idx3-ubyte`` and so on, as they are or ``.gz``.
        train: The ``train`` files, else the ``t10k`` files.

    Raises:
        DataError: A file is absent, damaged, or does not match the other.
    """
    folder = Path(Argument.parse(argument, ()).path).expanduser()
    part = "train" if train else "t10k"
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        message = f"{folder}: {len(images)} {part} images, but {len(labels)} labels"
        raise DataError(message)
    x = np.empty((len(images), 1, *images.shape[1:]), dtype=np.float32)
    np.divide(images[:, None], np.float32(_WHITE), out=x)
    return Dataset(x, labels.astype(np.int64), _CLASSES, "mnist")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes; ``.gz`` is unpacked.

    Raises:
        DataError: Magic, dimensions or length do not hold.
        OSError: The file cannot be read.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as stream:
                return _read_idx(cast("BinaryIO", stream), path, dimensions)
        with path.open("rb") as stream:
            return _read_idx(stream, path, dimensions)
    except (EOFError, gzip.BadGzipFile) as error:
        message = f"{path}: damaged: {error}"
        raise DataError(message) from error


def _read_idx(stream: BinaryIO, path: Path, dimensions: int) -> NDArray[np.uint8]:
    head = stream.read(4 + 4 * dimensions)
    if len(head) != 4 + 4 * dimensions or head[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        message = f"{path}: not an IDX file of unsigned bytes with {dimensions} dimensions"
        raise DataError(message)
    shape = struct.unpack_from(f">{dimensions}I", head, 4)
    size = math.prod(shape)
    check_bytes(str(path), size)
    values = stream.read(size)
    if len(values) != size or stream.read(1):
        message = f"{path}: its header announces {size} bytes, {len(values)} or more are there"
        raise DataError(message)
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    message = f"{folder}: neither {name} nor {name}.gz is there"
    raise DataError(message)
