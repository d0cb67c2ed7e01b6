"""Writes one model as ONNX in a process of its own: ``python -m central.modeling.exporting``.

torch's exporter takes four times the model's memory and keeps what it imported; a process that
ends gives all of it back. The request comes as JSON on stdin. It ends with central, however that
ends: central's next life writes the model again, and two must not write at the same time.
"""

import os
import sys
import threading
import time
from pathlib import Path

from central.modeling.modeler import TorchModeler
from schemas.base import WireMessage
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from updates.model_file import decode_model

_LOOK_S = 0.5


class ExportRequest(WireMessage):
    """What to write; ``models`` is central's allow-list, ``parent`` its process id."""

    parent: int
    models: dict[str, str]
    submission: TaskSubmission
    data: DataDescription
    source: str
    target: str


def main() -> None:
    """Do what the request on stdin says; a failure is a traceback and exit code 1."""
    request = ExportRequest.model_validate_json(sys.stdin.buffer.read())
    threading.Thread(target=_end_with, args=(request.parent,), daemon=True).start()
    TorchModeler(request.models, ()).export(
        request.submission,
        request.data,
        lambda: decode_model(Path(request.source).read_bytes())[1],
        Path(request.target),
    )


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
