"""Gradients of Softmax, LogSoftmax and Hardmax."""

from collections.abc import Sequence

import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.registry import Gradient, rule, stop
from central.modeling.training_graph.terms import Term

stop("Hardmax")


@rule("Softmax")
def _softmax(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    y = Term.of(builder, node.output[0])
    g = Term(builder, outer[0] or "", y.name)
    return [(y * (g - _total(g * y, node))).name]


@rule("LogSoftmax")
def _log_softmax(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    y = Term.of(builder, node.output[0])
    g = Term(builder, outer[0] or "", y.name)
    return [(g - y.apply("Exp") * _total(g, node)).name]


def _total(values: Term, node: onnx.NodeProto) -> Term:
    axes = values.builder.integers(attribute(node, "axis", -1))
    name = values.builder.emit("ReduceSum", values.name, axes, keepdims=1)
    return Term(values.builder, name, values.like)
