"""Gradients of normalizations within one example: of layers, instances and norms."""

from collections.abc import Sequence

import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.channels import Channels, epsilon_of
from central.modeling.training_graph.rules.registry import Gradient, forward, rewrite, rule
from central.modeling.training_graph.terms import Term

#: What a norm of zero is taken for, so that its gradient stays finite.
_LEAST_NORM = 1e-12


@forward("LayerNormalization")
def _with_statistics(builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    """Ask for the mean and the inverse deviation."""
    names = [name or builder.fresh("statistic") for name in node.output]
    names.extend(builder.fresh("statistic") for _ in range(len(names), 3))
    node.ClearField("output")
    node.output.extend(names)
    builder.nodes.append(node)
    return node


@rule("LayerNormalization")
def _layer_normalization(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    x, scale = Term.of(builder, node.input[0]), Term.of(builder, node.input[1])
    g = Term(builder, outer[0] or "", x.name)
    mean, inverse = (Term(builder, name, x.name) for name in node.output[1:])
    normal = (x - mean) * inverse
    gradients: list[Gradient] = [None, None, None]
    if x.name in builder.needed:
        rank = builder.rank(x.name)
        axes = range(attribute(node, "axis", -1) % rank, rank)
        scaled = g * scale
        along = _mean(scaled * normal, axes)
        gradients[0] = (inverse * (scaled - _mean(scaled, axes) - normal * along)).name
    if scale.name in builder.needed:
        gradients[1] = builder.unbroadcast((g * normal).name, x.name, scale.name)
    if len(node.input) > len(("x", "scale")) and node.input[2] in builder.needed:
        gradients[2] = builder.unbroadcast(g.name, x.name, node.input[2])
    return gradients


def _mean(values: Term, axes: Sequence[int]) -> Term:
    positions = values.builder.integers(*axes)
    name = values.builder.emit("ReduceMean", values.name, positions, keepdims=1)
    return Term(values.builder, name, values.like)


@forward("InstanceNormalization")
def _in_parts(builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    """Compute it out of parts, so that the gradient has what it needs."""
    x, scale, bias = node.input
    channels = Channels(builder, x)
    mean = channels.term(channels.sums(x)) / channels.length
    centred = builder.emit("Sub", x, channels.beside_rows(mean.name))
    variance = channels.term(channels.dots(centred, centred)) / channels.length
    inverse = 1 / (variance + epsilon_of(node)).apply("Sqrt")
    slope = inverse * channels.term(scale)
    offset = channels.term(bias) + inverse * 0
    channels.affine_rows(centred, slope.name, offset.name, output=node.output[0])
    builder.saved[node.output[0]] = (centred, inverse.name)
    return node


@rule("InstanceNormalization")
def _instance_normalization(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    x, scale = node.input[:2]
    g = outer[0] or ""
    channels = Channels(builder, x)
    centred, name = builder.saved[node.output[0]]
    inverse = channels.term(name)
    sums, dots = channels.term(channels.sums(g)), channels.term(channels.dots(g, centred))
    rows = builder.integers(0)
    gradients: list[Gradient] = [
        None,
        builder.emit("ReduceSum", (dots * inverse).name, rows, keepdims=0),
        builder.emit("ReduceSum", sums.name, rows, keepdims=0),
    ]
    if x in builder.needed:
        slope = channels.term(scale) * inverse
        share = slope / channels.length
        tilt, offset = -(share * inverse * inverse * dots), -(share * sums)
        line = channels.affine_rows(centred, tilt.name, offset.name)
        direct = builder.emit("Mul", g, channels.beside_rows(slope.name))
        gradients[0] = builder.emit("Add", direct, line)
    return gradients


@rule("LpNormalization")
def _lp_normalization(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    x, y = Term.of(builder, node.input[0]), Term.of(builder, node.output[0])
    g = Term(builder, outer[0] or "", x.name)
    axes = builder.integers(attribute(node, "axis", -1))
    order = attribute(node, "p", 2)
    norm = builder.emit(f"ReduceL{order}", x.name, axes, keepdims=1)
    positive = Term(builder, norm, x.name).apply("Max", _LEAST_NORM)
    along = Term(builder, builder.emit("ReduceSum", (g * y).name, axes, keepdims=1), x.name)
    direction = x.apply("Sign") if order == 1 else y
    return [((g - direction * along) / positive).name]


@rewrite("GroupNormalization")
def _as_instances(builder: GraphBuilder, node: onnx.NodeProto) -> None:
    """Write it as a normalization of instances whose channels are the groups.

    At opset 18 its scale and bias are by group.
    """
    x, scale, bias = node.input
    groups = attribute(node, "num_groups", 1)
    rows = builder.emit("Reshape", x, builder.integers(0, groups, -1))
    normal = builder.emit("InstanceNormalization", rows, scale, bias, epsilon=epsilon_of(node))
    target = builder.integers(0, *builder.static(x, range(1, builder.rank(x))))
    builder.emit("Reshape", normal, target, output=node.output[0])
