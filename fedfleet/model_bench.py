"""How long one training step takes on this device, with each backend that is installed.

Each backend runs in a process of its own, one after another, with the trainer that a device uses.
"""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedfleet.errors import FleetError
from fedfleet.model_steps import StepsRequest
from fedfleet.tables import number, size, table
from schemas.tasks import Training

if TYPE_CHECKING:
    from central.modeling.requests import ModelRequest

_COMMAND = (sys.executable, "-m", "fedfleet.model_steps")
_TIMEOUT_S = 600.0
_SHOWN_CHARACTERS = 300
_PACKAGES = {"onnx": "onnxruntime", "torch": "torch"}


class ModelBenchError(FleetError):
    """A step could not be measured."""


def bench_model(
    request: "ModelRequest", training: Training, steps: int, threads: int
) -> dict[str, object]:
    """Return the median step of each backend in milliseconds, and onnx over torch.

    Args:
        request: Which model; one that came as a file is measured with onnx alone.
        training: Optimizer and batch size.
        steps: Steps that count; some before them do not.
        threads: Of each backend.

    Raises:
        ModelBenchError: The model has no training graph, or a backend failed.
    """
    from central.modeling import process  # noqa: PLC0415 - only where a model is looked at

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        try:
            outcome = process.prepare(
                request,
                training,
                cache=Path(folder, "cache"),
                scratch=scratch,
                report_batch=training.batch_size,
            )
        except (process.PrepareProcessError, ValueError, OSError) as error:
            raise ModelBenchError(str(error)) from error
        if not outcome.has_graph:
            message = f"it has no training graph: {outcome.reason}"
            raise ModelBenchError(message)
        if outcome.report is not None:
            shape, classes = outcome.report.input, outcome.report.output[-1]
            request = request.model_copy(update={"shape": shape, "classes": classes})
        backends = [name for name in _PACKAGES if _can_run(name, request)]
        found = {
            backend: _measure(
                StepsRequest(
                    backend=backend,
                    model=request.model,
                    params=request.params,
                    shape=request.shape,
                    classes=request.classes,
                    target=request.target,
                    training=training,
                    folder=str(scratch),
                    steps=steps,
                    threads=threads,
                )
            )
            for backend in backends
        }
    return _summary(found, training.batch_size, threads)


def as_text(name: str, found: dict[str, object]) -> str:
    """Return the figures for a person."""
    backends = found["backends"]
    assert isinstance(backends, dict)  # noqa: S101 - made below
    rows = [
        (backend, number(one["median_ms"], 3), number(one["p10_ms"], 3), size(one["rss_bytes"]))
        for backend, one in backends.items()
    ]
    ratio = found["onnx_over_torch"]
    last = f"onnx takes {ratio:.2f} of torch's time" if isinstance(ratio, float) else ""
    head = f"{name}, batch {found['batch']}, threads {found['threads']}"
    columns = ("backend", "median ms", "p10 ms", "peak memory")
    return "\n".join(filter(None, (head, table(columns, rows), last)))


def _can_run(backend: str, request: "ModelRequest") -> bool:
    has_code = backend != "torch" or request.file is None
    return has_code and find_spec(_PACKAGES[backend]) is not None


def _measure(request: StepsRequest) -> dict[str, float]:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command of our own
            _COMMAND,
            input=request.model_dump_json().encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{request.backend}: not measured within {_TIMEOUT_S:g} s"
        raise ModelBenchError(message) from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        message = f"{request.backend}: {last[-_SHOWN_CHARACTERS:]}"
        raise ModelBenchError(message)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _summary(found: dict[str, dict[str, float]], batch: int, threads: int) -> dict[str, object]:
    ratio = None
    if len(found) == len(_PACKAGES):
        ratio = found["onnx"]["median_ms"] / found["torch"]["median_ms"]
    return {"batch": batch, "threads": threads, "backends": found, "onnx_over_torch": ratio}
