"""Where gradient rules are registered, one per operator of the standard domain."""

from collections.abc import Callable, Sequence
from enum import Enum

import onnx

from central.modeling.training_graph.builder import GraphBuilder


class Zero(Enum):
    """A gradient that is zero by definition, and was not forgotten."""

    ZERO = "zero"


ZERO = Zero.ZERO

#: The gradient of one input: a tensor's name, ZERO, or None where none is needed.
Gradient = str | Zero | None

#: ``(builder, node, gradients of its outputs)`` to the gradients of its inputs, in order.
#: A gradient of an output is None if nothing came back through it; at least one is there. The
#: list may be shorter than the inputs. What it gives for an input that ``builder.needed`` does
#: not hold is not used. The gradient of an input has the input's shape and element type.
Rule = Callable[[GraphBuilder, onnx.NodeProto, Sequence[str | None]], Sequence[Gradient]]

#: ``(builder, node)`` adds the forward half of a node that a gradient must pass, and returns the
#: node that the gradient rule gets. It may return the node changed (more outputs), or emit other
#: nodes that compute the same outputs; ``builder.saved`` keeps names for the rule.
Forward = Callable[[GraphBuilder, onnx.NodeProto], onnx.NodeProto]

#: ``(builder, node)`` replaces a node while the forward graph is prepared: it emits simpler nodes
#: that compute the same outputs under the same names. The shapes of its tensors are known.
Rewrite = Callable[[GraphBuilder, onnx.NodeProto], None]

_rules: dict[str, Rule] = {}
_forwards: dict[str, Forward] = {}
_rewrites: dict[str, Rewrite] = {}
_stops: set[str] = set()


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a gradient rule for these operators."""

    def register(function: Rule) -> Rule:
        _rules.update(dict.fromkeys(operators, function))
        return function

    return register


def forward(*operators: str) -> Callable[[Forward], Forward]:
    """Register how the forward half of these operators is emitted where a gradient must pass."""

    def register(function: Forward) -> Forward:
        _forwards.update(dict.fromkeys(operators, function))
        return function

    return register


def rewrite(*operators: str) -> Callable[[Rewrite], Rewrite]:
    """Register what replaces these operators while the forward graph is prepared."""

    def register(function: Rewrite) -> Rewrite:
        _rewrites.update(dict.fromkeys(operators, function))
        return function

    return register


def stop(*operators: str) -> None:
    """Register operators whose outputs are constant wherever they are differentiable."""
    _stops.update(operators)


def rules_for(operator: str) -> Rule | None:
    """Return the gradient rule of an operator, None if there is none."""
    return _rules.get(operator)


def forward_for(operator: str) -> Forward | None:
    """Return how an operator's forward half is emitted, None if as it is."""
    return _forwards.get(operator)


def rewrite_for(operator: str) -> Rewrite | None:
    """Return what replaces an operator during preparation, None if it stays."""
    return _rewrites.get(operator)


def stops(operator: str) -> bool:
    """Tell whether no gradient passes an operator, by definition."""
    return operator in _stops


def supported() -> frozenset[str]:
    """Return every operator that a training graph's forward half may have on a gradient's way."""
    return frozenset(_rules) | frozenset(_stops)
