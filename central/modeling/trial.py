"""A forward graph is run before it is kept: for two batch sizes, and beside what made it."""

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from central.modeling.forward import ForwardGraph
from central.modeling.requests import ModelRequest
from central.modeling.running import ForwardSession
from central.modeling.unsafe import Gate, UnsafeModelError
from learning.models.architectures import ModelError, Shape
from schemas.errors import shown

F32 = NDArray[np.float32]

#: Largest difference between what two runtimes give, relative to the largest logit (at least 1).
TOLERANCE = 1e-4
_BATCHES = (1, 3)


def check_against(
    forward: ForwardGraph, reference: Callable[[F32], F32], input_shape: Shape
) -> None:
    """Compare the graph, not dropping out, with what it was made from.

    Args:
        forward: The graph.
        reference: Gives the logits of examples ``(n, *input_shape)``.
        input_shape: Shape of one example.

    Raises:
        ModelError: They differ by more than ``TOLERANCE``.
    """
    session = ForwardSession(forward.to_bytes())
    for x in _examples(input_shape):
        logits = session.run(x, {})[0]
        difference = largest_difference(logits, reference(x))
        if not difference <= TOLERANCE:
            message = (
                f"model: its ONNX form gives other outputs: they differ by {difference:.3g}, "
                f"at most {TOLERANCE} is allowed"
            )
            raise ModelError(message)


def largest_difference(got: F32, expected: F32) -> float:
    """Return the largest difference, relative to the largest expected value (at least 1)."""
    if got.shape != expected.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / max(1.0, float(np.abs(expected).max())))


def check_by_running(
    forward: ForwardGraph, request: ModelRequest, *, has_classes: bool = True
) -> None:
    """Run the graph on examples of the data's shape.

    Args:
        forward: The graph.
        request: What it is for.
        has_classes: Whether the logits must be ``(n, classes)``.

    Raises:
        ModelError: It does not take them, or the logits do not fit them; ``UnsafeModelError`` if
            it came as a file.
    """
    try:
        _check_input(forward, request.shape)
        session = ForwardSession(forward.to_bytes())
        for x in _examples(request.shape):
            _check_logits(session.run(x, {})[0], len(x), request, has_classes=has_classes)
    except ModelError as error:
        if request.file is None:
            raise
        reason = str(error).removeprefix("model: ")
        raise UnsafeModelError(Gate.TRIAL, reason, request.file.name) from error


def with_own_shapes(forward: ForwardGraph, request: ModelRequest) -> ModelRequest:
    """Return the request with the shape of examples and the classes that a file says.

    Raises:
        UnsafeModelError: An axis besides the batch is free.
    """
    graph = forward.model.graph
    (shape, logits) = (dimensions(value) for value in (graph.input[0], graph.output[0]))
    if not all((*shape, *logits)):
        name = "" if request.file is None else request.file.name
        message = f"axes of {shape} to {logits} are free; fix all but the batch"
        raise UnsafeModelError(Gate.INPUT, message, name)
    return request.model_copy(update={"shape": shape, "classes": logits[-1] if logits else 1})


def dimensions(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return the sizes of one example's axes; 0: it is free."""
    return tuple(one.dim_value for one in value.type.tensor_type.shape.dim[1:])


def _check_input(forward: ForwardGraph, shape: Shape) -> None:
    dimensions = forward.model.graph.input[0].type.tensor_type.shape.dim[1:]
    wanted = tuple(one.dim_value if one.HasField("dim_value") else None for one in dimensions)
    fits = len(wanted) == len(shape) and all(
        size is None or size == given for size, given in zip(wanted, shape, strict=True)
    )
    if not fits:
        message = f"model: it takes examples of shape {wanted}, those of the data have {shape}"
        raise ModelError(message)


def _check_logits(logits: F32, count: int, request: ModelRequest, *, has_classes: bool) -> None:
    wanted = (count, request.classes) if has_classes else (count, *logits.shape[1:])
    if logits.shape != wanted:
        message = (
            f"model: {shown(request.model)} gives {logits.shape} for {count} examples, "
            f"{wanted} is needed"
        )
        raise ModelError(message)


def _examples(input_shape: Shape) -> list[F32]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, *input_shape), dtype=np.float32) for n in _BATCHES]
