"""Starts the process in which models are built: it takes memory that must be given back.

A model that came as an .onnx file is read within limits that the kernel enforces, so that a
hostile one ends that process at worst.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from central.modeling.limits import ProcessLimits
from central.modeling.requests import ModelRequest, Outcome, PrepareRequest, Word
from central.modeling.unsafe import Gate, UnsafeModelError
from learning.models.architectures import ModelError
from schemas.limits import MIB
from schemas.tasks import Training
from transport.full_disk import NO_SPACE, no_space

_COMMAND = (sys.executable, "-m", "central.modeling.preparing")
#: How long building a model may take, unless central's settings say otherwise.
TIMEOUT_S = 900.0
_SHOWN_CHARACTERS = 300
#: For an .onnx file: what onnxruntime needs to begin with, and so many copies of the file.
_BASE_BYTES = 4 * 1024 * MIB
_COPIES = 12
#: Of the time that all may take: what an .onnx file's gates may take of a CPU.
_GATES_SHARE = 1 / 3


class PrepareProcessError(RuntimeError):
    """The process ended without a result; the text is its last word."""


def prepare(  # noqa: PLR0913 - each names one part of the work
    model: ModelRequest,
    training: Training | None,
    *,
    wants_graph: bool = True,
    cache: Path,
    scratch: Path,
    report_batch: int | None = None,
    limits: ProcessLimits | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Have the forward graph stored in ``cache``, and what is made from it in ``scratch``.

    Args:
        model: Which model.
        training: How it is trained, None: the forward graph is all that is wanted.
        wants_graph: Whether a training graph is wanted as well.
        cache: Folder of the forward graphs.
        scratch: An empty folder, for the files that ``requests`` names.
        report_batch: Report what the graph holds and what a batch of that size takes.
        limits: For an .onnx file; None: those that suit its size and the time.
        timeout_s: How long it may take.

    Raises:
        ModelError: The model cannot be built; ``UnsafeModelError`` if a gate refused its file.
        OSError: A disk is full; it may be tried again.
        PrepareProcessError: The process failed for another reason.
    """
    request = PrepareRequest(
        parent=os.getpid(),
        model=model,
        training=training,
        wants_graph=wants_graph,
        cache=str(cache.resolve()),
        scratch=str(scratch.resolve()),
        report_batch=report_batch,
        limits=_limits_for(model, timeout_s) if limits is None else limits,
    )
    code, said = _run(request, timeout_s)
    path = scratch / Word.OUTCOME.value
    if code == 0 and path.is_file():
        return _checked(Outcome.model_validate_json(path.read_bytes()))
    if model.file is not None and code < 0:
        _refuse_for(code, model.file)
    last = said.decode(errors="replace").strip().rpartition("\n")[2][-_SHOWN_CHARACTERS:]
    if code == NO_SPACE:
        raise no_space(last)
    message = f"model {model.model}: not built, exit code {code}: {last}"
    raise PrepareProcessError(message)


def _run(request: PrepareRequest, timeout_s: float) -> tuple[int, bytes]:
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(  # noqa: S603 - a fixed command of our own
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words
        )
        try:
            process.communicate(request.model_dump_json().encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            name = request.model.model
            message = f"model {name}: not built within {timeout_s:g} s (prepare_timeout_s)"
            raise PrepareProcessError(message) from error
        finally:
            process.kill()
            process.wait()
        words.seek(max(0, words.tell() - 4096)) if words.tell() else None
        return process.returncode, words.read()


def _limits_for(model: ModelRequest, timeout_s: float) -> ProcessLimits | None:
    if model.file is None:
        return None
    try:
        size = model.file.stat().st_size
    except OSError:
        size = 0  # the gate tells it
    cpu_s = max(1, math.ceil(timeout_s * _GATES_SHARE))
    return ProcessLimits(memory_bytes=_BASE_BYTES + _COPIES * size, cpu_s=cpu_s)


def _checked(outcome: Outcome) -> Outcome:
    if outcome.refused is None:
        return outcome
    if outcome.gate is not None:
        raise UnsafeModelError(Gate(outcome.gate), outcome.refused, outcome.file)
    raise ModelError(outcome.refused)


def _refuse_for(code: int, file: Path) -> None:
    if -code == signal.SIGXCPU:
        message = "reading it took more CPU time than is allowed (prepare_timeout_s)"
        raise UnsafeModelError(Gate.TIME, message, file.name)
    name = signal.Signals(-code).name
    message = f"reading it ended the process ({name}), for want of memory or by a fault in it"
    raise UnsafeModelError(Gate.PROCESS, message, file.name)
