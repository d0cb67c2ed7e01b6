"""Writes one model as ONNX in a process of its own: ``python -m central.modeling.exporting``.

Several copies of the model are in memory meanwhile; a process that ends gives all of them back.
The request comes as JSON on stdin. It ends with central, however that ends: central's next life
writes the model again, and two must not write at the same time.
"""

import sys
from pathlib import Path

from central.modeling.limits import end_with
from central.modeling.modeler import GraphModeler
from schemas.base import WireMessage
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from transport.full_disk import told_by_exit_code
from updates.model_file import decode_model


class ExportRequest(WireMessage):
    """What to write; ``models`` is what central's settings allow, ``cache`` its forward graphs.

    ``parent`` is central's process id, ``timeout_s`` what building a forward graph may take.
    """

    parent: int
    timeout_s: float
    models: dict[str, str]
    cache: str
    submission: TaskSubmission
    data: DataDescription
    source: str
    target: str
    forward_key: str | None = None


def main() -> None:
    """Do what the request on stdin says; a failure is a traceback and exit code 1."""
    request = ExportRequest.model_validate_json(sys.stdin.buffer.read())
    end_with(request.parent)
    with told_by_exit_code():
        layout, vector = decode_model(Path(request.source).read_bytes())
        modeler = GraphModeler(request.models, (), Path(request.cache), request.timeout_s)
        target, key = Path(request.target), request.forward_key
        modeler.export(request.submission, request.data, layout, vector, target, key)


if __name__ == "__main__":
    main()
