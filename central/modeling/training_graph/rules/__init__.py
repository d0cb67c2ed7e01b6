"""Gradient rules of ONNX operators, one group a file; importing this package registers them."""

from central.modeling.training_graph.rules import (
    activations,
    arithmetic,
    elementwise,
    indexing,
    matmul,
    reduction,
    resizing,
    shaping,
    windows,
)
from central.modeling.training_graph.rules.registry import (
    ZERO,
    Forward,
    Gradient,
    Rewrite,
    Rule,
    Zero,
    forward,
    forward_for,
    rewrite,
    rewrite_for,
    rule,
    rules_for,
    stop,
    stops,
    supported,
)

#: Imported for what they register.
GROUPS = (
    activations,
    arithmetic,
    elementwise,
    indexing,
    matmul,
    reduction,
    resizing,
    shaping,
    windows,
)

__all__ = [
    "GROUPS",
    "ZERO",
    "Forward",
    "Gradient",
    "Rewrite",
    "Rule",
    "Zero",
    "forward",
    "forward_for",
    "rewrite",
    "rewrite_for",
    "rule",
    "rules_for",
    "stop",
    "stops",
    "supported",
]
