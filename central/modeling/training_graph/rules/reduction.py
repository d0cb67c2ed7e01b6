"""Gradients of sums, means, extremes and norms over axes."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.axes import reduced_axes
from central.modeling.training_graph.rules.registry import Gradient, rule
from central.modeling.training_graph.rules.unary import unary
from central.modeling.training_graph.terms import Term

#: ``(gradient of the output, input, output, axes)``, the first and third with the reduced axes
#: kept, to the gradient of the input or what broadcasts to it.
Slope = Callable[[Term, Term, Term, list[int]], Term]

#: A product's gradient takes the square of the number of factors.
_MAX_FACTORS = 256


def reduction(*operators: str) -> Callable[[Slope], Slope]:
    """Register the gradient of operators that reduce their input over axes."""

    def register(function: Slope) -> Slope:
        def gradients(
            builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
        ) -> Sequence[Gradient]:
            axes = reduced_axes(builder, node)
            x, y = Term.of(builder, node.input[0]), Term.of(builder, node.output[0])
            g = Term(builder, outer[0] or "", y.name)
            if axes and not attribute(node, "keepdims", 1):
                g, y = (item.apply_to("Unsqueeze", builder.integers(*axes)) for item in (g, y))
            slope = function(g, x, y, axes)
            return [builder.emit("Expand", slope.name, builder.shape_of(x.name))]

        rule(*operators)(gradients)
        return function

    return register


@reduction("ReduceSum")
def _sum(g: Term, _x: Term, _y: Term, _axes: list[int]) -> Term:
    return g


@reduction("ReduceMean")
def _mean(g: Term, x: Term, y: Term, axes: list[int]) -> Term:
    builder = x.builder
    sizes = [builder.shape(x.name)[axis] for axis in axes]
    if all(isinstance(size, int) for size in sizes):
        return g * (1 / float(np.prod([int(size) for size in sizes])))
    dtype = builder.dtype(x.name)
    few = Term(builder, builder.emit("Size", y.name), y.name).apply("Cast", to=dtype)
    many = Term(builder, builder.emit("Size", x.name), x.name).apply("Cast", to=dtype)
    return g * (few / many)


@reduction("ReduceMax", "ReduceMin")
def _extreme(g: Term, x: Term, y: Term, axes: list[int]) -> Term:
    """Share the gradient evenly among those that are equal, as torch.amax does."""
    hits = x.apply("Equal", y).apply("Cast", to=x.builder.dtype(x.name))
    return hits * (g / _summed(hits, axes))


@reduction("ReduceL1")
def _l1(g: Term, x: Term, _y: Term, _axes: list[int]) -> Term:
    return g * x.apply("Sign")


@reduction("ReduceL2")
def _l2(g: Term, x: Term, y: Term, _axes: list[int]) -> Term:
    """At the origin the gradient is taken as zero, as torch does."""
    return (g / y).where(y > 0) * x


@reduction("ReduceSumSquare")
def _sum_square(g: Term, x: Term, _y: Term, _axes: list[int]) -> Term:
    return g * (x * 2)


@reduction("ReduceLogSum")
def _log_sum(g: Term, _x: Term, y: Term, _axes: list[int]) -> Term:
    return g / y.apply("Exp")


@reduction("ReduceLogSumExp")
def _log_sum_exp(g: Term, x: Term, y: Term, _axes: list[int]) -> Term:
    return g * (x - y).apply("Exp")


@reduction("ReduceProd")
def _prod(g: Term, x: Term, _y: Term, axes: list[int]) -> Term:
    """Multiply all the others, for each factor: right even where one of them is zero."""
    builder = x.builder
    if len(axes) != 1:
        reason = "the gradient of a product over several axes is not supported"
        raise UnsupportedModelError(reason)
    axis = axes[0]
    (factors,) = builder.static(x.name, [axis])
    if factors > _MAX_FACTORS:
        reason = f"a product of {factors} factors, at most {_MAX_FACTORS} are supported"
        raise UnsupportedModelError(reason)
    behind = builder.rank(x.name) - 1 - axis
    eye = np.eye(factors, dtype=bool).reshape(factors, factors, *[1] * behind)
    own = Term(builder, builder.constant(eye), x.name)
    rows = x.apply_to("Unsqueeze", builder.integers(axis))
    others = Term(builder, builder.scalar(1, x.name), x.name).where(own, rows)
    return g * others.apply_to("ReduceProd", builder.integers(axis + 1), keepdims=0)


@unary("CumSum")
def _cumsum(g: Term, _x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    return g.apply_to(
        "CumSum",
        node.input[1],
        exclusive=attribute(node, "exclusive", 0),
        reverse=1 - attribute(node, "reverse", 0),
    )


def _summed(term: Term, axes: list[int]) -> Term:
    return term.apply_to("ReduceSum", term.builder.integers(*axes), keepdims=1)
