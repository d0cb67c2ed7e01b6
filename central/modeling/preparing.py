"""Builds one model in a process of its own: ``python -m central.modeling.preparing``.

The request comes as JSON on stdin; the results are files. torch's exporter keeps what it imported,
and a file of somebody else's is parsed within limits: a process that ends gives all of it back.
It ends with the process that asked, however that ends.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from central.modeling import sources
from central.modeling.forward_store import ForwardStore
from central.modeling.limits import apply_limits, end_with, lift_cpu_limit
from central.modeling.requests import ModelRequest, Outcome, PrepareRequest, Word
from central.modeling.unsafe import Gate, UnsafeModelError
from learning.models.architectures import ModelError
from transport.full_disk import told_by_exit_code

if TYPE_CHECKING:
    from central.modeling.forward import ForwardGraph


def main() -> None:
    """Do what the request on stdin says; a fault of ours is a traceback and exit code 1."""
    request = PrepareRequest.model_validate_json(sys.stdin.buffer.read())
    end_with(request.parent)
    if request.limits is not None:
        apply_limits(request.limits)
    with told_by_exit_code():
        outcome = _outcome(request)
        path = Path(request.scratch, Word.OUTCOME.value)
        path.write_bytes(outcome.model_dump_json().encode())


def _outcome(request: PrepareRequest) -> Outcome:
    file = request.model.file
    try:
        return _build(request)
    except UnsafeModelError as error:
        return Outcome(refused=error.reason, gate=error.gate, file=error.file)
    except ModelError as error:
        return Outcome(refused=str(error))
    except MemoryError:
        if file is None:
            raise
        reason = "reading it takes more memory than is allowed"
        return Outcome(refused=reason, gate=Gate.MEMORY.value, file=file.name)


def _build(request: PrepareRequest) -> Outcome:
    key, store = sources.key_of(request.model), ForwardStore(Path(request.cache))
    path = store.find(key)
    forward, model = _forward(request, path)
    lift_cpu_limit()
    if path is None and sources.key_of(request.model) != key:
        message = f"model: what {request.model.model} is made from was changed while it was read"
        raise ModelError(message)
    problem = None if path is not None else _keep(request, store, key, forward)
    if request.training is None:
        return Outcome(key=key)
    from central.modeling.trainable import write_trainable  # noqa: PLC0415 - imports onnx

    outcome = write_trainable(request.model_copy(update={"model": model}), key, forward)
    return outcome.model_copy(update={"not_kept": problem})


def _keep(
    request: PrepareRequest, store: ForwardStore, key: str, forward: "ForwardGraph"
) -> str | None:
    """Store a forward graph; return why it could not be, where the task can do without."""
    try:
        store.put(key, forward.to_bytes())
    except OSError as error:
        if request.training is None:
            raise  # it is all that was asked for
        return str(error)
    return None


def _forward(request: PrepareRequest, path: Path | None) -> "tuple[ForwardGraph, ModelRequest]":
    """Return the forward graph, checked, and what it is for: a file may say that itself."""
    from central.modeling import trial  # noqa: PLC0415 - imports onnx and onnxruntime
    from central.modeling.forward import ForwardGraph  # noqa: PLC0415

    model, training = request.model, request.training
    forward = sources.build(model) if path is None else ForwardGraph.load(path)
    if model.file is not None and not model.shape:
        model = trial.with_own_shapes(forward, model)
    has_classes = training is not None and training.loss == "cross_entropy"
    trial.check_by_running(forward, model, has_classes=has_classes)
    return forward, model


if __name__ == "__main__":
    main()
