"""From a forward graph to what a task begins with: layout, first parameters, training graph."""

from dataclasses import replace
from glob import escape
from pathlib import Path

from central.modeling.forward import ForwardGraph
from central.modeling.reporting import report_on
from central.modeling.requests import Outcome, PrepareRequest, Word, step_settings
from central.modeling.training_graph import (
    StepSpec,
    TrainingGraph,
    UnsupportedModelError,
    build_training_graph,
)
from learning.graph_file import encode_graph
from learning.models.architectures import ModelError
from schemas.errors import PayloadError
from schemas.tasks import Training
from updates.layout import Layout
from updates.model_file import encode_model


def write_trainable(request: PrepareRequest, key: str, forward: ForwardGraph) -> Outcome:
    """Write model and training graph into the scratch folder that the request names.

    Raises:
        ModelError: The model came as a file and has no training graph, so nothing can train it;
            or its graph is too large for a device.
    """
    if request.training is None or not request.wants_graph:
        _write_model(request, forward)
        return Outcome(key=key)
    graph, reason = None, None
    try:
        graph = build_training_graph(forward.model, step_spec(request.training, forward.fixed))
    except UnsupportedModelError as error:
        reason = str(error)
        if request.model.file is not None and request.report_batch is None:
            message = f"model: it cannot be trained: {reason}"
            raise ModelError(message) from error
    if graph is None:
        _write_model(request, forward)
    else:
        _write_graph(request, graph)
    report = None
    if request.report_batch is not None:
        report = report_on(forward, graph, request.model, request.report_batch)
    return Outcome(key=key, has_graph=graph is not None, reason=reason, report=report)


def step_spec(training: Training, fixed: tuple[str, ...]) -> StepSpec:
    """Return the step of a task's training.

    Args:
        training: What the task says.
        fixed: Names of tensors that are not trained, whatever it says.
    """
    spec = StepSpec(**step_settings(training))  # type: ignore[arg-type]  # checked by itself
    return replace(spec, frozen=(*spec.frozen, *map(escape, fixed)))


def _write_model(request: PrepareRequest, forward: ForwardGraph) -> None:
    values = forward.values()
    layout = Layout.of({name: array.shape for name, array in values.items()})
    content = encode_model(layout, layout.flatten(values))
    Path(request.scratch, Word.MODEL.value).write_bytes(content)


def _write_graph(request: PrepareRequest, graph: TrainingGraph) -> None:
    folder = Path(request.scratch)
    (folder / Word.MODEL.value).write_bytes(encode_model(graph.layout, graph.first))
    (folder / Word.GRAPH.value).write_bytes(_packed(graph))


def _packed(graph: TrainingGraph) -> bytes:
    try:
        return encode_graph(graph.model.SerializeToString(deterministic=True))
    except PayloadError as error:
        raise ModelError(str(error)) from error
