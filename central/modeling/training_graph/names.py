"""Names of a training graph's inputs and outputs, kept free of the forward graph's own names."""

import onnx

from central.modeling.training_graph.errors import UnsupportedModelError

INPUT = "input"
LOGITS = "logits"
LABELS = "labels"
MASK = "mask"
LOSS = "loss"
#: What a forward graph's own output ``loss`` is called inside the training graph.
OWN_LOSS = "forward/loss"
CORRECT = "correct"
PARAMETERS = "parameters"
NEW_PARAMETERS = "new_parameters"
STATE = "state"
NEW_STATE = "new_state"
REFERENCE = "reference"
LEARNING_RATE = "learning_rate"
PROXIMAL_MU = "proximal_mu"
CLIP_NORM = "clip_norm"
#: Not an output of a step: what the verification looks at.
GRADIENT = "gradient"

_ALWAYS = frozenset(
    {
        CLIP_NORM,
        CORRECT,
        GRADIENT,
        LEARNING_RATE,
        LOSS,
        NEW_PARAMETERS,
        NEW_STATE,
        PARAMETERS,
        PROXIMAL_MU,
        REFERENCE,
        STATE,
    }
)
_DATA = frozenset({LABELS, MASK})


def with_free_names(forward: onnx.ModelProto, *, own_loss: bool) -> onnx.ModelProto:
    """Return a copy in which no inner tensor has a name that the training graph needs.

    Args:
        forward: A forward graph.
        own_loss: Whether it computes its loss itself; it may have ``labels`` and ``mask`` as
            inputs then, and must have the output ``loss``.

    Raises:
        UnsupportedModelError: Inputs or outputs are not as agreed, or a parameter has such a name.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(forward)
    graph = copy.graph
    parameters = {tensor.name for tensor in graph.initializer}
    inputs = {info.name for info in graph.input} - parameters
    outputs = {info.name for info in graph.output}
    _check("inputs", inputs, {INPUT}, {INPUT} | (_DATA if own_loss else set()))
    wanted = LOSS if own_loss else LOGITS
    _check("outputs", outputs, {wanted}, outputs)
    reserved = _ALWAYS | (_DATA - inputs)
    if clash := sorted(parameters & reserved):
        reason = f"its parameter {clash[0]!r} has a name that the training graph uses itself"
        raise UnsupportedModelError(reason, "rename it")
    _rename(graph, reserved)
    return copy


def _check(what: str, found: set[str], needed: set[str], allowed: set[str]) -> None:
    if not needed <= found <= allowed:
        reason = f"its {what} are {', '.join(sorted(found))}, needed are {', '.join(needed)}"
        raise UnsupportedModelError(reason, f"rename the {what} and fold away the others")


def _rename(graph: onnx.GraphProto, reserved: frozenset[str]) -> None:
    new = {name: f"forward/{name}" for name in reserved}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for info in (*graph.value_info, *graph.output):
        info.name = new.get(info.name, info.name)
