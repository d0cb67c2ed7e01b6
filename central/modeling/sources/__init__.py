"""Where forward graphs come from: built-in models, a user's torch factories, .onnx files.

Which of them a name stands for is written in ``learning.models`` or in central's own settings.
"""

import hashlib
import importlib.util
import json
import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from central.modeling.requests import ModelRequest, step_settings
from learning.models.architectures import ModelError
from schemas.tasks import Training

if TYPE_CHECKING:
    from central.modeling.forward import ForwardGraph

#: What makes forward and training graphs: a change of it makes every cached one stale.
_OWN, _BUILT_IN = "central.modeling", "learning.models"
_MAX_SOURCE_FILES = 5_000
_BLOCK_BYTES = 1 << 20


def key_of(request: ModelRequest) -> str:
    """Return a digest of all that decides the forward graph: request, code, versions.

    Raises:
        ModelError: What the model is made from cannot be read.
    """
    digest = hashlib.sha256()
    file = request.file
    parts = (
        (_file_digest(*_state(file)), str(request.shape), str(request.classes))
        if file is not None
        else (request.model_dump_json(), _factory_digest(request), _version("torch"))
    )
    for part in (*parts, _package_digest(_OWN), _version("onnx")):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def step_key(key: str, training: Training) -> str:
    """Return the digest of what decides a training graph.

    Args:
        key: Of the forward graph.
        training: What the task says.
    """
    return _digest(f"{key} {json.dumps(step_settings(training), sort_keys=True)}".encode())


def build(request: ModelRequest) -> "ForwardGraph":
    """Return the forward graph; import this function's needs only in a process of its own.

    Raises:
        ModelError: The model is not known, its settings are wrong, or it cannot be exported.
        UnsafeModelError: The .onnx file is not one that is taken.
    """
    if request.file is not None:
        from central.modeling.sources import onnx_files  # noqa: PLC0415

        return onnx_files.forward_graph(request.file)
    from central.modeling.sources import torch_modules  # noqa: PLC0415 - imports torch
    from learning.models import registry  # noqa: PLC0415

    allowed = {request.model: request.target} if request.target else {}
    module = registry.build(
        request.model,
        request.params,
        request.shape,
        request.classes,
        request.seed,
        allow_list=allowed,
    )
    return torch_modules.forward_graph(module, request.shape)


def _state(path: Path) -> tuple[Path, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        message = f"model: {path} cannot be read: {error.strerror}"
        raise ModelError(message) from error
    return path, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8192)
def _file_digest(path: Path, size: int, changed_ns: int) -> str:
    """Return the digest of a file; read again only when its size or its time has changed."""
    del size, changed_ns
    if not path.is_file():  # a pipe would never end
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _factory_digest(request: ModelRequest) -> str:
    """Return the digest of the source files of the package that the factory lies in."""
    if request.target is None:
        return _package_digest(_BUILT_IN)
    return _package_digest(request.target.partition(":")[0].partition(".")[0])


def _package_digest(package: str) -> str:
    files = _package_files(package)
    return _digest("".join(_file_digest(*_state(path)) for path in files).encode())


def _package_files(package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return []  # the process that imports it tells what is wrong
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return [origin]
    found = (Path(where) / name for where, _, names in os.walk(origin.parent) for name in names)
    return sorted(path for path in found if path.suffix == ".py")[:_MAX_SOURCE_FILES]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
