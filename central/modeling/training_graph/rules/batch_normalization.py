"""Batch normalization in training mode, out of elementary nodes.

onnxruntime's inference builds have no training mode. Source: S. Ioffe, C. Szegedy, "Batch
Normalization", ICML 2015, https://arxiv.org/abs/1502.03167, algorithm 1 and the gradients of
section 3; running statistics as torch keeps them, of the unbiased variance.

Statistics are of the valid examples alone where ``GraphBuilder.mask`` names which these are, and
the gradient of an invalid example is zero.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from central.modeling.training_graph.builder import BATCH, GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.channels import Channels, epsilon_of
from central.modeling.training_graph.rules.registry import Gradient, forward, rule
from central.modeling.training_graph.terms import Term

OPERATOR = "BatchNormalization"


def running_statistics(builder: GraphBuilder, nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Return each running statistic that a step changes, and the name of its new value.

    Call it after ``emit_forward``, with the nodes that it returned. The old values are read
    under their own names: initializers, or ``release``d and provided by the step. A batch
    normalization that no gradient has to pass keeps its statistics and is not listed.

    Returns:
        Names of the new means and variances (same shape and type), by the initializer's name, in
        the order of the nodes. Nodes that share their statistics update them one after another.
    """
    names = [name for node in nodes if node.op_type == OPERATOR for name in node.input[3:5]]
    return {name: builder.running[name] for name in names if name in builder.running}


@forward(OPERATOR)
def _in_training(builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    x, scale, bias, running_mean, running_variance = node.input
    channels = Channels(builder, x)
    count = _count(channels)
    mean = channels.term(_total(channels, channels.sums(x))) / count
    centred = builder.emit("Sub", x, channels.beside(mean.name))
    squares = _total(channels, channels.dots(centred, centred))
    variance = channels.term(squares) / count
    zeros = channels.constant(np.zeros(channels.count))
    builder.emit(
        OPERATOR,
        centred,
        scale,
        bias,
        zeros,
        variance.name,
        output=node.output[0],
        epsilon=epsilon_of(node),
    )
    builder.saved[node.output[0]] = (centred, variance.name, count.name)
    unbiased = channels.term(squares) / (count - 1).apply("Max", 1)
    for name, value in ((running_mean, mean), (running_variance, unbiased)):
        _keep(builder, node, name, value)
    return node


@rule(OPERATOR)
def _batch_normalization(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    x, scale = node.input[:2]
    g = outer[0] or ""
    channels = Channels(builder, x)
    centred, variance, count = builder.saved[node.output[0]]
    inverse = 1 / (channels.term(variance) + epsilon_of(node)).apply("Sqrt")
    total = channels.term(_total(channels, channels.sums(g)))
    dots = channels.term(_total(channels, channels.dots(g, centred)))
    gradients: list[Gradient] = [None, (dots * inverse).name, total.name]
    if x in builder.needed:
        slope = channels.term(scale) * inverse
        share = slope / channels.term(count)
        line = _line(channels, centred, -(share * inverse * inverse * dots), -(share * total))
        direct = builder.emit("Mul", g, channels.beside(slope.name))
        gradients[0] = builder.emit("Add", direct, line)
    return gradients


def _keep(builder: GraphBuilder, node: onnx.NodeProto, name: str, value: Term) -> None:
    """Note the new value of a running statistic."""
    momentum = attribute(node, "momentum", 0.9)
    before = Term(builder, builder.running.get(name, name), value.like)
    builder.running[name] = (before * momentum + value * (1 - momentum)).name


def _line(channels: Channels, centred: str, slope: Term, offset: Term) -> str:
    """Return ``centred * slope + offset`` for the valid examples, 0 for the others."""
    builder = channels.builder
    if (mask := _mask(channels)) is None:
        return channels.affine(centred, slope.name, offset.name)
    column = channels.term(builder.emit("Reshape", mask, builder.integers(-1, 1)))
    return channels.affine_rows(centred, (column * slope).name, (column * offset).name)


def _count(channels: Channels) -> Term:
    """Return how many values of a channel the statistics are of, shape ``()``."""
    builder = channels.builder
    if mask := _mask(channels):
        rows = builder.emit("ReduceSum", mask, keepdims=0)
    else:
        size = builder.emit("Shape", channels.like, start=0, end=1)
        size = builder.emit("Squeeze", size)
        rows = builder.emit("Cast", size, to=builder.dtype(channels.like))
    return (channels.term(rows) * channels.length).apply("Max", 1)


def _total(channels: Channels, by_row: str) -> str:
    """Sum values by row and channel over the valid rows."""
    builder = channels.builder
    if mask := _mask(channels):
        return builder.emit("MatMul", mask, by_row)
    return builder.emit("ReduceSum", by_row, builder.integers(0), keepdims=0)


def _mask(channels: Channels) -> str | None:
    mask = channels.builder.mask
    rows = channels.builder.shape(channels.like)[0]
    if mask is None or isinstance(rows, int):
        return None
    if rows != BATCH:
        reason = f"it normalizes over {rows} rows, which of them are valid is not known"
        advice = "keep the batch as the first axis, or set requires.backend to torch"
        raise UnsupportedModelError(reason, advice)
    return mask
