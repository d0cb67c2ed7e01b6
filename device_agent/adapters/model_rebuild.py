"""A model's file made of an older one and deltas, as if it had been pulled.

It runs on the training thread: the loop goes on meanwhile. Memory: the older model is mapped, two
vectors of its size are made here, and the file is written piece by piece.
"""

import hashlib
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from device_agent.service.ports import TrainingStoppedError, Work
from schemas.errors import PayloadError
from schemas.limits import MIB
from transport.failpoints import failpoint
from transport.objects import ObjectStore
from updates.arrays import F32
from updates.codecs.registry import create
from updates.errors import CodecParameterError
from updates.layout import Layout
from updates.model_delta import apply_delta
from updates.model_file import decode_model, model_header


class RebuildError(Exception):
    """The deltas do not lead to the model; its key frame must be pulled."""


def rebuild(
    objects: ObjectStore, work: Work, scratch: Path, should_stop: Callable[[], bool]
) -> None:
    """Make the model of a job from ``work.base_sha256`` and ``work.deltas``, and store it durably.

    Args:
        objects: Where base and deltas are, and where the model goes.
        work: The job.
        scratch: Where the file is written; on the file system of ``objects``. A ``*.tmp`` that
            is left there goes with the next start.
        should_stop: Asked between two deltas.

    Raises:
        RebuildError: Something is missing or damaged, or the result has another digest.
        TrainingStoppedError: ``should_stop`` said so.
        OSError: The disk is full.
    """
    try:
        path = _file(objects, work, scratch, should_stop)
    except RebuildError:
        for used in (work.base_sha256, *work.deltas):
            if used is not None:
                objects.verify(used)  # what is torn goes, so that nothing is tried with it again
        raise
    failpoint("device.model.rebuilt")
    objects.adopt(path, work.model_sha256, durable=True)


def _file(
    objects: ObjectStore, work: Work, scratch: Path, should_stop: Callable[[], bool]
) -> Path:
    layout, vector = _rebuilt(objects, work, should_stop)
    sha256, path = _write(layout, vector, scratch / f"{work.model_sha256}.model.tmp")
    if sha256 != work.model_sha256:
        path.unlink(missing_ok=True)
        message = f"the deltas give {sha256}, the model is {work.model_sha256}"
        raise RebuildError(message)
    return path


def _rebuilt(
    objects: ObjectStore, work: Work, should_stop: Callable[[], bool]
) -> tuple[Layout, F32]:
    if work.base_sha256 is None or work.plan.downlink is None:
        message = "no model to begin from"
        raise RebuildError(message)
    try:
        codec = create(work.plan.downlink.codec, work.plan.downlink.codec_params)
        layout, vector = decode_model(_mapped(objects.path(work.base_sha256)))
        for delta in work.deltas:
            if should_stop():
                raise TrainingStoppedError
            vector = apply_delta(vector, _mapped(objects.path(delta)), layout, codec)
    except (FileNotFoundError, PayloadError, CodecParameterError) as error:
        raise RebuildError(str(error)) from error
    return layout, vector


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # mmap refuses it; a power cut may leave a file so
            message = f"{path.name} is empty"
            raise RebuildError(message)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _write(layout: Layout, vector: F32, path: Path) -> tuple[str, Path]:
    values = np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for part in (memoryview(model_header(layout)), *_pieces(values)):
                digest.update(part)
                file.write(part)
    except OSError:
        path.unlink(missing_ok=True)  # what is half a model must not fill the disk
        raise
    return digest.hexdigest(), path


def _pieces(values: memoryview) -> list[memoryview]:
    return [values[start : start + MIB] for start in range(0, len(values), MIB)]
