"""Gradients of mathematical functions of one tensor, value by value."""

import math
from collections.abc import Sequence

import onnx

from central.modeling.training_graph.builder import FLOATS, GraphBuilder
from central.modeling.training_graph.nodes import optional_input
from central.modeling.training_graph.rules.registry import ZERO, Gradient, rule, stop
from central.modeling.training_graph.rules.unary import unary
from central.modeling.training_graph.terms import Term

stop(
    *("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "IsNaN", "IsInf", "OneHot", "EyeLike"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor"),
    *("Floor", "Ceil", "Round", "Sign", "Range", "ConstantOfShape"),
    *("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"),
)


@unary("Identity")
def _identity(g: Term, _x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g


@unary("Neg")
def _neg(g: Term, _x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return -g


@unary("Abs")
def _abs(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g * x.apply("Sign")


@unary("Exp")
def _exp(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return g * y


@unary("Log")
def _log(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g / x


@unary("Sqrt")
def _sqrt(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return g * 0.5 / y


@unary("Reciprocal")
def _reciprocal(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return -(g * (y * y))


@unary("Erf")
def _erf(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g * ((-(x * x)).apply("Exp") * (2 / math.sqrt(math.pi)))


@unary("Sin")
def _sin(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g * x.apply("Cos")


@unary("Cos")
def _cos(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return -(g * x.apply("Sin"))


@unary("Tan")
def _tan(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return g * (y * y + 1)


@unary("Asin")
def _asin(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g / (1 - x * x).apply("Sqrt")


@unary("Acos")
def _acos(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return -(g / (1 - x * x).apply("Sqrt"))


@unary("Atan")
def _atan(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g / (x * x + 1)


@unary("Sinh")
def _sinh(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g * ((x.apply("Exp") + (-x).apply("Exp")) * 0.5)


@unary("Cosh")
def _cosh(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g * ((x.apply("Exp") - (-x).apply("Exp")) * 0.5)


@unary("Asinh")
def _asinh(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g / (x * x + 1).apply("Sqrt")


@unary("Acosh")
def _acosh(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g / (x * x - 1).apply("Sqrt")


@unary("Atanh")
def _atanh(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g / (1 - x * x)


@unary("Clip")
def _clip(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    """Nothing passes at the limits themselves: as in ReLU6, and unlike torch.clamp."""
    low, high = optional_input(node, 1), optional_input(node, 2)
    above = x > Term.of(x.builder, low) if low else None
    below = x < Term.of(x.builder, high) if high else None
    if above and below:
        return g.only(above & below)
    inside = above or below
    return g.only(inside) if inside else g


@rule("Cast")
def _cast(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    dtype = builder.dtype(node.input[0])
    return [builder.emit("Cast", outer[0], to=dtype) if dtype in FLOATS else ZERO]
