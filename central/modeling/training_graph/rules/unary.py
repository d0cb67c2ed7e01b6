"""How gradients of functions of one tensor are registered."""

from collections.abc import Callable, Sequence

import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.rules.registry import Gradient, rule
from central.modeling.training_graph.terms import Term

#: ``(gradient of the output, first input, output, node)`` to the gradient of the first input.
Unary = Callable[[Term, Term, Term, onnx.NodeProto], Term]


def unary(*operators: str) -> Callable[[Unary], Unary]:
    """Register the gradient of operators of which only the first input is differentiated."""

    def register(function: Unary) -> Unary:
        def gradients(
            builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
        ) -> Sequence[Gradient]:
            x, y = Term.of(builder, node.input[0]), Term.of(builder, node.output[0])
            return [function(Term(builder, outer[0] or "", y.name), x, y, node).name]

        rule(*operators)(gradients)
        return function

    return register
