"""Gradients of operators of several tensors that are broadcast to each other."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.rules.registry import Gradient, rule
from central.modeling.training_graph.terms import Term

#: ``(gradient of the output, inputs, position, output)`` to the gradient of that input, still in
#: the output's shape.
Partial = Callable[[Term, Sequence[Term], int, Term], Term]


def broadcast(*operators: str) -> Callable[[Partial], Partial]:
    """Register the partial derivatives of operators whose inputs are broadcast."""

    def register(function: Partial) -> Partial:
        def gradients(
            builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
        ) -> Sequence[Gradient]:
            inputs = [Term.of(builder, name) for name in node.input]
            y = Term.of(builder, node.output[0])
            g = Term(builder, outer[0] or "", y.name)
            return [
                builder.unbroadcast(function(g, inputs, position, y).name, y.name, x.name)
                if x.name in builder.needed
                else None
                for position, x in enumerate(inputs)
            ]

        rule(*operators)(gradients)
        return function

    return register


@broadcast("Add", "Sum")
def _add(g: Term, _inputs: Sequence[Term], _position: int, _y: Term) -> Term:
    return g


@broadcast("Sub")
def _sub(g: Term, _inputs: Sequence[Term], position: int, _y: Term) -> Term:
    return -g if position else g


@broadcast("Mean")
def _mean(g: Term, inputs: Sequence[Term], _position: int, _y: Term) -> Term:
    return g * (1 / len(inputs))


@broadcast("Mul")
def _mul(g: Term, inputs: Sequence[Term], position: int, _y: Term) -> Term:
    return g * inputs[1 - position]


@broadcast("Div")
def _div(g: Term, inputs: Sequence[Term], position: int, y: Term) -> Term:
    divisor = inputs[1]
    return -(g * y / divisor) if position else g / divisor


@broadcast("Max", "Min")
def _extreme(g: Term, inputs: Sequence[Term], position: int, y: Term) -> Term:
    """Share the gradient evenly among those that are equal, as torch does."""
    if len(inputs) == 1:
        return g
    dtype = y.builder.dtype(y.name)
    hits = [Term(y.builder, (x.apply("Equal", y)).name, y.name) for x in inputs]
    shares = [hit.apply("Cast", to=dtype) for hit in hits]
    return g * (shares[position] / shares[0].apply("Sum", *shares[1:]))


@broadcast("Pow")
def _pow(g: Term, inputs: Sequence[Term], position: int, y: Term) -> Term:
    base, exponent = inputs
    builder = base.builder
    if position:
        slope = (y * base.apply("Log")).where(base > 0)
        slope = slope.apply("Cast", to=builder.dtype(exponent.name))
        return g * slope
    constant = builder.values.get(exponent.name)
    if constant is not None and constant.size == 1:
        return g * _power_slope(base, float(np.asarray(constant).item()))
    power = Term(builder, exponent.apply("Cast", to=builder.dtype(base.name)).name, base.name)
    zero = power.apply("Equal", 0)
    slope = power * base.apply("Pow", power - 1)
    return (g * slope).where(zero.apply("Not"))


def _power_slope(base: Term, exponent: float) -> Term:
    if exponent == 0:
        return base * 0
    if exponent == 1:
        return base * 0 + 1
    if exponent == 2:  # noqa: PLR2004 - a square
        return base * 2
    return base.apply("Pow", exponent - 1) * exponent


@broadcast("PRelu")
def _prelu(g: Term, inputs: Sequence[Term], position: int, _y: Term) -> Term:
    x, slope = inputs
    if position:
        return (g * x).where(x < 0)
    return g.where(x > 0, g * slope)


@rule("Where")
def _where(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    condition, yes, no = node.input
    output = node.output[0]
    zero = builder.scalar(0, output)
    taken: list[Gradient] = [None]
    for name, sides in ((yes, (outer[0], zero)), (no, (zero, outer[0]))):
        if name in builder.needed:
            masked = builder.emit("Where", condition, *sides)
            taken.append(builder.unbroadcast(masked, output, name))
        else:
            taken.append(None)
    return taken


@rule("Expand")
def _expand(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    return [builder.unbroadcast(outer[0] or "", node.output[0], node.input[0])]
