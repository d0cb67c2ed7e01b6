"""Arithmetic on tensors of a graph under construction, written as arithmetic."""

from dataclasses import dataclass
from typing import Union

from central.modeling.training_graph.builder import Attribute, GraphBuilder

Operand = Union["Term", float]


@dataclass(frozen=True, slots=True)
class Term:
    """A floating-point tensor; ``+ - * /`` emit nodes, numbers become constants of its type.

    Attributes:
        builder: Where nodes go.
        name: Of the tensor.
        like: A tensor whose element type this one has, and the builder knows.
    """

    builder: GraphBuilder
    name: str
    like: str

    @classmethod
    def of(cls, builder: GraphBuilder, name: str) -> "Term":
        """Return the term of a tensor whose element type is known."""
        return cls(builder, name, name)

    def apply(self, operator: str, *others: Operand, **attributes: Attribute) -> "Term":
        """Return the output of a node whose first input this is."""
        names = [self._name_of(other) for other in others]
        (name,) = self.builder.emit_many(operator, self.name, *names, outputs=1, **attributes)
        return Term(self.builder, name, self.like)

    def apply_to(self, operator: str, *names: str, **attributes: Attribute) -> "Term":
        """Return the output of a node whose first input this is and whose others have names."""
        (name,) = self.builder.emit_many(operator, self.name, *names, outputs=1, **attributes)
        return Term(self.builder, name, self.like)

    def where(self, condition: "Term", otherwise: Operand = 0) -> "Term":
        """Return this where the condition holds, elsewhere the other operand."""
        name = self.builder.emit("Where", condition.name, self.name, self._name_of(otherwise))
        return Term(self.builder, name, self.like)

    def only(self, condition: "Term") -> "Term":
        """Return this where the condition holds, elsewhere 0; it must be finite everywhere.

        Where takes five times as long as a product with zeros and ones.
        """
        share = condition.apply("Cast", to=self.builder.dtype(self.like))
        return self * share

    def _name_of(self, other: Operand) -> str:
        if isinstance(other, Term):
            return other.name
        return self.builder.scalar(other, self.like)

    def _constant(self, value: float) -> "Term":
        return Term(self.builder, self.builder.scalar(value, self.like), self.like)

    def __add__(self, other: Operand) -> "Term":
        """Emit Add."""
        return self.apply("Add", other)

    def __sub__(self, other: Operand) -> "Term":
        """Emit Sub."""
        return self.apply("Sub", other)

    def __mul__(self, other: Operand) -> "Term":
        """Emit Mul."""
        return self.apply("Mul", other)

    def __truediv__(self, other: Operand) -> "Term":
        """Emit Div."""
        return self.apply("Div", other)

    def __radd__(self, other: float) -> "Term":
        """Emit Add."""
        return self.apply("Add", other)

    def __rmul__(self, other: float) -> "Term":
        """Emit Mul."""
        return self.apply("Mul", other)

    def __rsub__(self, other: float) -> "Term":
        """Emit Sub."""
        return self._constant(other) - self

    def __rtruediv__(self, other: float) -> "Term":
        """Emit Div."""
        return self._constant(other) / self

    def __neg__(self) -> "Term":
        """Emit Neg."""
        return self.apply("Neg")

    def __gt__(self, other: Operand) -> "Term":
        """Emit Greater."""
        return self.apply("Greater", other)

    def __lt__(self, other: Operand) -> "Term":
        """Emit Less."""
        return self.apply("Less", other)

    def __and__(self, other: "Term") -> "Term":
        """Emit And."""
        return self.apply("And", other)
