"""LSTM, GRU and RNN of a fixed length, written out step by step in elementary operators.

The products with the input are one for all steps. Equations: the ONNX standard's, opset 14.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import (
    attribute,
    has_attribute,
    optional_input,
    optional_output,
)
from central.modeling.training_graph.rules.registry import rewrite
from central.modeling.training_graph.terms import Term

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

#: Activations without parameters, as the operators of the same name.
_ACTIVATIONS = {name.lower(): name for name in ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")}

_REFUSED = ("clip", "activation_alpha", "activation_beta")

#: Positions of the inputs after data, weight and recurrence weight.
_BIAS, _LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = range(3, 8)


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of one node, its weights cut out.

    Attributes:
        builder: Where nodes go.
        like: The node's data input, for the element type.
        hidden: Number of hidden values.
        activations: Operators, in the order of the standard.
        steps: What the input contributes to the gates, in the order of the steps; each of the
            shape ``(batch, gates * hidden)``, biases added.
        recurrence: Weight of the hidden values, shape ``(gates * hidden, hidden)``.
        bias: Of the recurrence, shape ``(gates * hidden,)``, if there is one.
        peepholes: Weights of the cell at the gates i, o and f, shape ``(3 * hidden,)``.
    """

    builder: GraphBuilder
    like: str
    hidden: int
    activations: list[str]
    steps: list[str]
    recurrence: str
    bias: str | None
    peepholes: str | None

    def term(self, name: str) -> Term:
        """Return a tensor as a term."""
        return Term(self.builder, name, self.like)

    def split(self, name: str, *sizes: int, axis: int = -1) -> list[Term]:
        """Split a tensor."""
        parts = self.builder.emit_many(
            "Split", name, self.builder.integers(*sizes), outputs=len(sizes), axis=axis
        )
        return [self.term(part) for part in parts]

    def gemm(self, values: Term, weight: str, addend: str | None) -> str:
        """Return ``values @ weight.T + addend``."""
        return self.builder.emit("Gemm", values.name, weight, addend, transB=1)

    def lstm(self, hidden: Term, cell: Term) -> list[tuple[Term, Term]]:
        """Return the hidden values and the cell after each step."""
        first, second, third = self.activations
        states = []
        looks = self.split(self.peepholes, *[self.hidden] * 3) if self.peepholes else None
        for step in self.steps:
            gates = self.split(self.gemm(hidden, self.recurrence, step), *[self.hidden] * 4)
            enter, leave, keep, new = gates
            if looks:
                enter, keep = enter + looks[0] * cell, keep + looks[2] * cell
            cell = keep.apply(first) * cell + enter.apply(first) * new.apply(second)
            if looks:
                leave += looks[1] * cell
            hidden = leave.apply(first) * cell.apply(third)
            states.append((hidden, cell))
        return states

    def gru(self, hidden: Term, *, linear_before_reset: bool) -> list[tuple[Term, Term]]:
        """Return the hidden values after each step, twice."""
        first, second = self.activations
        two, one = 2 * self.hidden, self.hidden
        pair, candidate = (part.name for part in self.split(self.recurrence, two, one, axis=0))
        bias = self.split(self.bias, two, one)[1].name if self.bias else None
        states = []
        for step in self.steps:
            entered, new = self.split(step, two, one)
            gates = self.term(self.gemm(hidden, pair, entered.name)).apply(first)
            update, reset = self.split(gates.name, one, one)
            if linear_before_reset:
                new += reset * self.term(self.gemm(hidden, candidate, bias))
            else:
                new = self.term(self.gemm(reset * hidden, candidate, new.name))
            new = new.apply(second)
            hidden = new + update * (hidden - new)
            states.append((hidden, hidden))
        return states

    def rnn(self, hidden: Term) -> list[tuple[Term, Term]]:
        """Return the hidden values after each step, twice."""
        states = []
        for step in self.steps:
            product = self.term(self.gemm(hidden, self.recurrence, step))
            hidden = product.apply(self.activations[0])
            states.append((hidden, hidden))
        return states


@rewrite("LSTM", "GRU", "RNN")
def _unroll(builder: GraphBuilder, node: onnx.NodeProto) -> None:
    _check(builder, node)
    direction = attribute(node, "direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    runs = []
    for index in range(count):
        backwards = direction == "reverse" or index == 1
        runs.append(_run(builder, node, index, count, backwards=backwards))
    _give(builder, node, runs)


def _check(builder: GraphBuilder, node: onnx.NodeProto) -> None:
    given = [name for name in _REFUSED if has_attribute(node, name)]
    given.extend(name for name in ("layout", "input_forget") if attribute(node, name, 0))
    if given:
        reason = f"its {' and '.join(given)} cannot be written out in elementary operators"
        raise UnsupportedModelError(reason)
    length = builder.static(node.input[0], [0])[0]
    if lengths := optional_input(node, _LENGTHS):
        values = builder.value(lengths, "the lengths of its sequences")
        if (values != length).any():
            reason = f"its sequences have other lengths than the {length} steps of its input"
            raise UnsupportedModelError(reason)


def _run(
    builder: GraphBuilder, node: onnx.NodeProto, index: int, count: int, *, backwards: bool
) -> list[tuple[Term, Term]]:
    """Return the states of one direction, in the order of the input."""
    hidden = builder.static(node.input[2], [2])[0]
    steps, bias = _entered(builder, node, index, count)
    recurrence = _part(builder, node.input[2], index, count)
    peepholes = optional_input(node, _PEEPHOLES)
    direction = Direction(
        builder,
        node.input[0],
        hidden,
        _activations(node, index),
        steps[::-1] if backwards else steps,
        recurrence,
        bias,
        _part(builder, peepholes, index, count) if peepholes else None,
    )
    start = direction.term(_start(builder, node, _HIDDEN, index, count))
    if node.op_type == "LSTM":
        cell = direction.term(_start(builder, node, _CELL, index, count))
        states = direction.lstm(start, cell)
    elif node.op_type == "GRU":
        late = bool(attribute(node, "linear_before_reset", 0))
        states = direction.gru(start, linear_before_reset=late)
    else:
        states = direction.rnn(start)
    return states[::-1] if backwards else states


def _activations(node: onnx.NodeProto, index: int) -> list[str]:
    usual = _USUAL[node.op_type]
    named = [item.strings for item in node.attribute if item.name == "activations"]
    if not named:
        return usual
    names = [name.decode() for name in named[0]]
    chosen = names[index * len(usual) : (index + 1) * len(usual)]
    unknown = [name for name in chosen if name.lower() not in _ACTIVATIONS]
    if unknown:
        reason = f"its activation {unknown[0]} is not one of {', '.join(_ACTIVATIONS.values())}"
        raise UnsupportedModelError(reason)
    return [_ACTIVATIONS[name.lower()] for name in chosen]


def _part(builder: GraphBuilder, name: str, index: int, count: int) -> str:
    """Cut one direction out of a tensor whose first axis is the directions."""
    if count > 1:
        sizes = builder.integers(*[1] * count)
        name = builder.emit_many("Split", name, sizes, outputs=count, axis=0)[index]
    return builder.emit("Squeeze", name, builder.integers(0))


def _entered(
    builder: GraphBuilder, node: onnx.NodeProto, index: int, count: int
) -> tuple[list[str], str | None]:
    """Return what the input gives to each step, and the bias of the recurrence."""
    x, hidden = node.input[0], builder.static(node.input[2], [2])[0]
    length, width = builder.static(x, [0])[0], _GATES[node.op_type] * hidden
    weight = _part(builder, node.input[1], index, count)
    product = builder.emit("MatMul", x, builder.emit("Transpose", weight, perm=(1, 0)))
    later = None
    if bias := optional_input(node, _BIAS):
        of_input, later = builder.emit_many(
            "Split",
            _part(builder, bias, index, count),
            builder.integers(width, width),
            outputs=2,
            axis=0,
        )
        product = builder.emit("Add", product, of_input)
        product = builder.emit("Add", product, _outside(builder, node, later, hidden))
    if length == 1:
        parts = [product]
    else:
        sizes = builder.integers(*[1] * length)
        parts = builder.emit_many("Split", product, sizes, outputs=length, axis=0)
    first = builder.integers(0)
    return [builder.emit("Squeeze", part, first) for part in parts], later


def _outside(builder: GraphBuilder, node: onnx.NodeProto, bias: str, hidden: int) -> str:
    """Return the part of the recurrence's bias that no reset gate multiplies."""
    if node.op_type != "GRU" or not attribute(node, "linear_before_reset", 0):
        return bias
    dtype = helper.tensor_dtype_to_np_dtype(builder.dtype(node.input[0]))
    ones = np.repeat([1, 1, 0], hidden)
    return builder.emit("Mul", bias, builder.constant(ones, dtype))


def _start(
    builder: GraphBuilder, node: onnx.NodeProto, position: int, index: int, count: int
) -> str:
    """Return the given state before the first step, or zeros, shape ``(batch, hidden)``."""
    if name := optional_input(node, position):
        return _part(builder, name, index, count)
    x = node.input[0]
    batch = builder.emit("Shape", x, start=1, end=2)
    hidden = builder.integers(*builder.static(node.input[2], [2]))
    shape = builder.emit("Concat", batch, hidden, axis=0)
    zero = helper.make_tensor("zero", builder.dtype(x), [1], [0])
    return builder.emit("ConstantOfShape", shape, value=zero)


def _give(
    builder: GraphBuilder, node: onnx.NodeProto, runs: Sequence[list[tuple[Term, Term]]]
) -> None:
    """Emit the outputs that the node has."""
    first = builder.integers(0)
    if every := optional_output(node, 0):
        sides = []
        for states in runs:
            rows = [builder.emit("Unsqueeze", hidden.name, first) for hidden, _ in states]
            steps = builder.emit("Concat", *rows, axis=0)
            sides.append(builder.emit("Unsqueeze", steps, builder.integers(1)))
        builder.emit("Concat", *sides, output=every, axis=1)
    forwards = attribute(node, "direction", "forward") != "reverse"
    for position in (1, 2):
        if output := optional_output(node, position):
            ends = [runs[0][-1 if forwards else 0], *(states[0] for states in runs[1:])]
            rows = [builder.emit("Unsqueeze", end[position - 1].name, first) for end in ends]
            builder.emit("Concat", *rows, output=output, axis=0)
