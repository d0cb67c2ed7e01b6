"""Reverse-mode differentiation: the forward half, then gradients from its outputs to targets.

Use: make a ``GraphBuilder`` of a prepared graph, ``release`` the targets, ``emit_forward``, emit
the loss and its gradient with respect to the graph's outputs, ``backpropagate``.
"""

from collections.abc import Iterable, Mapping, Sequence

import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import STANDARD_DOMAINS
from central.modeling.training_graph.reach import reached_outputs
from central.modeling.training_graph.rules import (
    Forward,
    Gradient,
    Zero,
    forward_for,
    rules_for,
)

_SHOWN = 3


def emit_forward(
    builder: GraphBuilder, graph: onnx.GraphProto, targets: Iterable[str]
) -> list[onnx.NodeProto]:
    """Emit the forward half; return its nodes as the gradient rules see them, in order.

    Args:
        builder: Made from ``graph``; its ``needed`` is filled.
        graph: Prepared, with the shape and type of every tensor.
        targets: Tensors whose gradients will be asked for.

    Raises:
        UnsupportedModelError: The forward half of a node that a gradient must pass is refused.
    """
    builder.needed.update(targets)
    nodes = []
    for source in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(source)
        reached = reached_outputs(builder, node)
        builder.needed.update(reached)
        special = (
            forward_for(node.op_type) if reached and node.domain in STANDARD_DOMAINS else None
        )
        if special is None:
            builder.nodes.append(node)
        else:
            node = _specially(special, builder, node)
        nodes.append(node)
    return nodes


def backpropagate(
    builder: GraphBuilder,
    nodes: Sequence[onnx.NodeProto],
    seeds: Mapping[str, str],
    targets: Sequence[str],
) -> dict[str, str]:
    """Emit the backward half and return the name of each target's gradient.

    Args:
        builder: Holds the forward half.
        nodes: What ``emit_forward`` returned.
        seeds: Gradients of the loss, by the tensor that they belong to.
        targets: Where gradients are wanted, a subset of what ``emit_forward`` got.

    Raises:
        UnsupportedModelError: A node has no rule, a rule refuses or forgets an input, or a
            target does not influence the seeds' tensors.
    """
    found = dict(seeds)
    for node in reversed(nodes):
        outputs = [found.get(name) for name in node.output]
        if any(outputs) and not builder.needed.isdisjoint(node.input):
            _pass(builder, node, outputs, found)
    unreached = [name for name in targets if name not in found]
    if unreached:
        raise _unreached(unreached)
    return {name: found[name] for name in targets}


def _specially(special: Forward, builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    try:
        return special(builder, node)
    except UnsupportedModelError as error:
        raise error.at(node) from None


def _pass(
    builder: GraphBuilder,
    node: onnx.NodeProto,
    outputs: Sequence[str | None],
    found: dict[str, str],
) -> None:
    try:
        gradients = _gradients(builder, node, outputs)
        for position, name in enumerate(node.input):
            if name in builder.needed:
                gradient = gradients[position] if position < len(gradients) else None
                _collect(builder, name, gradient, found)
    except UnsupportedModelError as error:
        raise error.at(node) from None


def _gradients(
    builder: GraphBuilder, node: onnx.NodeProto, outputs: Sequence[str | None]
) -> Sequence[Gradient]:
    function = rules_for(node.op_type) if node.domain in STANDARD_DOMAINS else None
    if function is None:
        reason = "there is no gradient rule for this operator"
        raise UnsupportedModelError(reason)
    return function(builder, node, outputs)


def _collect(builder: GraphBuilder, name: str, gradient: Gradient, found: dict[str, str]) -> None:
    if isinstance(gradient, Zero):
        return
    if gradient is None:
        reason = f"there is no gradient with respect to its input {name!r}"
        raise UnsupportedModelError(reason)
    total = builder.emit("Add", found[name], gradient) if name in found else gradient
    if name in builder.shapes and name in builder.dtypes:
        builder.describe(total, builder.shapes[name], builder.dtypes[name])
    found[name] = total


def _unreached(names: Sequence[str]) -> UnsupportedModelError:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    reason = f"{len(names)} trainable tensors do not influence the loss: {shown}"
    return UnsupportedModelError(reason, "freeze them by name")
