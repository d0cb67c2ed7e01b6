"""The steps of LSTM, GRU and RNN in elementary operators: the ONNX standard's equations."""

from dataclasses import dataclass

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.terms import Term


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
        sizes = [self.hidden] * 3
        looks = self.split(self.peepholes, *sizes) if self.peepholes else None
        states = []
        for step in self.steps:
            gates = self.gemm(hidden, self.recurrence, step)
            if looks:
                enter, leave, keep, new = self.split(gates, self.hidden, *sizes)
                keep = (keep + looks[2] * cell).apply(first)
                enter = (enter + looks[0] * cell).apply(first)
            else:  # one node for three gates
                three, new = self.split(gates, 3 * self.hidden, self.hidden)
                enter, leave, keep = self.split(three.apply(first).name, *sizes)
            cell = keep * cell + enter * new.apply(second)
            if looks:
                leave = (leave + looks[1] * cell).apply(first)
            hidden = leave * cell.apply(third)
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
