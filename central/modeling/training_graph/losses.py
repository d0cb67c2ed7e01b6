"""Losses, their gradients with respect to the logits, and how many examples were right.

Every loss is a mean over the valid examples (``mask`` is 1 for them) and over an example's own
values. The gradients are written out, which takes fewer and better conditioned operators than
differentiating the loss: ``(softmax - one hot) / valid`` needs no logarithm.
"""

import math
from collections.abc import Callable

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.names import CORRECT, LABELS, LOSS, MASK, OWN_LOSS
from central.modeling.training_graph.spec import LossName

#: Where Huber's loss turns from a parabola into a line; torch's default.
HUBER_DELTA = 1.0
_MATRIX = 2


#: Gets the builder, the logits, the labels and each value's weight; returns loss and gradient.
Elementwise = Callable[[GraphBuilder, str, str, str], tuple[str, str]]


def emit_loss(builder: GraphBuilder, loss: LossName, logits: str) -> dict[str, str]:
    """Emit ``loss`` (float32, ``()``) and ``correct`` (int64, ``()``).

    Args:
        builder: Holds the forward half; ``labels`` and ``mask`` are inputs of the graph.
        loss: Which one.
        logits: The forward graph's output, shape ``(batch, ...)``.

    Returns:
        Gradients of the mean loss, by the forward graph's output that they belong to.

    Raises:
        UnsupportedModelError: The loss does not fit the output's shape.
    """
    if loss == "model":
        return _own_loss(builder)
    weights = _example_weights(builder)
    if loss == "cross_entropy":
        return {logits: _cross_entropy(builder, logits, weights)}
    weights = _value_weights(builder, logits, weights)
    value, gradient = _ELEMENTWISE[loss](builder, logits, LABELS, weights)
    builder.emit("ReduceSum", value, keepdims=0, output=LOSS)
    if loss == "bce":
        _count_sides(builder, logits)
    else:
        _count_none(builder)
    return {logits: gradient}


def _example_weights(builder: GraphBuilder) -> str:
    """Return 1 / valid for valid examples and 0 for others, shape ``(batch,)``."""
    valid = builder.emit("ReduceSum", MASK, keepdims=0)
    at_least_one = builder.emit("Max", valid, builder.scalar(1))
    return builder.emit("Div", MASK, at_least_one)


def _value_weights(builder: GraphBuilder, logits: str, weights: str) -> str:
    """Spread the examples' weights over an example's values, shape ``(batch, 1, ...)``."""
    rank = builder.rank(logits)
    values = math.prod(builder.static(logits, range(1, rank)))
    if values > 1:
        weights = builder.emit("Mul", weights, builder.scalar(1 / values))
    return _as_column(builder, weights, rank)


def _as_column(builder: GraphBuilder, vector: str, rank: int) -> str:
    if rank == 1:
        return vector
    return builder.emit("Unsqueeze", vector, builder.integers(*range(1, rank)))


def _cross_entropy(builder: GraphBuilder, logits: str, weights: str) -> str:
    if builder.rank(logits) != _MATRIX:
        reason = (
            f"cross_entropy needs logits of shape (batch, classes), "
            f"{logits!r} has {builder.shape(logits)}"
        )
        raise UnsupportedModelError(reason, "flatten the output, or use another loss")
    (classes,) = builder.static(logits, [1])
    column = _as_column(builder, weights, _MATRIX)
    bounds = builder.constant([0, 1], np.float32)
    hot = builder.emit("OneHot", LABELS, builder.integers(classes), bounds, axis=1)
    weighted = builder.emit("Mul", hot, column)
    log_softmax = builder.emit("LogSoftmax", logits, axis=1)
    likelihood = builder.emit("ReduceSum", builder.emit("Mul", log_softmax, weighted), keepdims=0)
    builder.emit("Neg", likelihood, output=LOSS)
    best = builder.emit("ArgMax", logits, axis=1, keepdims=0)
    _count(builder, builder.emit("Equal", best, LABELS))
    softmax = builder.emit("Exp", log_softmax)
    return builder.emit("Sub", builder.emit("Mul", softmax, column), weighted)


def _binary_cross_entropy(
    builder: GraphBuilder, logits: str, labels: str, weights: str
) -> tuple[str, str]:
    """``log(1 + exp(x)) - x * y``, whose first term onnxruntime computes without overflow."""
    soft = builder.emit("Softplus", logits)
    each = builder.emit("Sub", soft, builder.emit("Mul", logits, labels))
    difference = builder.emit("Sub", builder.emit("Sigmoid", logits), labels)
    return builder.emit("Mul", each, weights), builder.emit("Mul", difference, weights)


def _squared_error(
    builder: GraphBuilder, logits: str, labels: str, weights: str
) -> tuple[str, str]:
    error = builder.emit("Sub", logits, labels)
    weighted = builder.emit("Mul", error, weights)
    gradient = builder.emit("Mul", weighted, builder.scalar(2))
    return builder.emit("Mul", error, weighted), gradient


def _huber(builder: GraphBuilder, logits: str, labels: str, weights: str) -> tuple[str, str]:
    """With ``c`` the error clipped to +-1, it is ``c * (error - c / 2)``; its slope is ``c``."""
    error = builder.emit("Sub", logits, labels)
    low, high = builder.scalar(-HUBER_DELTA), builder.scalar(HUBER_DELTA)
    clipped = builder.emit("Clip", error, low, high)
    gradient = builder.emit("Mul", clipped, weights)
    half = builder.emit("Mul", clipped, builder.scalar(0.5))
    return builder.emit("Mul", gradient, builder.emit("Sub", error, half)), gradient


_ELEMENTWISE: dict[LossName, Elementwise] = {
    "bce": _binary_cross_entropy,
    "mse": _squared_error,
    "huber": _huber,
}


def _own_loss(builder: GraphBuilder) -> dict[str, str]:
    """Take the forward graph's loss: one number, or one an example, of which the mean is taken."""
    _count_none(builder)
    shape = builder.shape(OWN_LOSS)
    if shape == ():
        builder.emit("Identity", OWN_LOSS, output=LOSS)
        return {OWN_LOSS: builder.scalar(1)}
    if len(shape) != 1 or isinstance(shape[0], int):
        reason = f"its output {LOSS!r} has shape {shape}, () or (batch,) is needed"
        raise UnsupportedModelError(reason, "take the mean inside the graph")
    weights = _example_weights(builder)
    weighted = builder.emit("Mul", OWN_LOSS, weights)
    builder.emit("ReduceSum", weighted, keepdims=0, output=LOSS)
    return {OWN_LOSS: weights}


def _count_sides(builder: GraphBuilder, logits: str) -> None:
    """Count examples all of whose logits have their label's side: above 0, label above 1/2."""
    said = builder.emit("Greater", logits, builder.scalar(0))
    true = builder.emit("Greater", LABELS, builder.scalar(0.5))
    same = builder.emit("Equal", said, true)
    if (rank := builder.rank(logits)) > 1:
        number = builder.emit("Cast", same, to=onnx.TensorProto.FLOAT)
        axes = builder.integers(*range(1, rank))
        least = builder.emit("ReduceMin", number, axes, keepdims=0)
        same = builder.emit("Greater", least, builder.scalar(0.5))
    _count(builder, same)


def _count(builder: GraphBuilder, right: str) -> None:
    number = builder.emit("Cast", right, to=onnx.TensorProto.FLOAT)
    valid = builder.emit("ReduceSum", builder.emit("Mul", number, MASK), keepdims=0)
    builder.emit("Cast", valid, to=onnx.TensorProto.INT64, output=CORRECT)


def _count_none(builder: GraphBuilder) -> None:
    builder.emit("Identity", builder.constant(0, np.int64), output=CORRECT)
