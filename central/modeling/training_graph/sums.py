"""Gradients of tensors as they come in from the nodes that use them."""

from collections.abc import Mapping

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.rules import Gradient, Product, Zero


class GradientSums:
    """Adds up the gradients of each tensor; products with one matrix become one product.

    A recurrent model multiplies the same matrix at every step: the rows of all steps stacked and
    multiplied once take far less time than a product and an addition for each.

    Args:
        builder: Where nodes go.
        seeds: Gradients that are there from the start, by tensor.
    """

    def __init__(self, builder: GraphBuilder, seeds: Mapping[str, str]) -> None:
        self._builder = builder
        self._sums = dict(seeds)
        self._products: dict[str, list[Product]] = {}

    def add(self, name: str, gradient: Gradient) -> None:
        """Add what one use of a tensor gives.

        Raises:
            UnsupportedModelError: The gradient is missing.
        """
        match gradient:
            case Zero():
                return
            case Product():
                self._products.setdefault(name, []).append(gradient)
            case str():
                self._add(name, gradient)
            case None:
                reason = f"there is no gradient with respect to its input {name!r}"
                raise UnsupportedModelError(reason)

    def total(self, name: str) -> str | None:
        """Return a tensor's gradient, None if nothing came; all its uses must have been added."""
        products = self._products.pop(name, [])
        if products:
            self._add(name, self._multiply(products))
        return self._sums.get(name)

    def _add(self, name: str, gradient: str) -> None:
        builder = self._builder
        known = self._sums.get(name)
        total = gradient if known is None else builder.emit("Add", known, gradient)
        if name in builder.shapes and name in builder.dtypes:
            builder.describe(total, builder.shapes[name], builder.dtypes[name])
        self._sums[name] = total

    def _multiply(self, products: list[Product]) -> str:
        left = self._stack([product.left for product in products])
        right = self._stack([product.right for product in products])
        return self._builder.emit("Gemm", left, right, transA=1)

    def _stack(self, names: list[str]) -> str:
        return names[0] if len(names) == 1 else self._builder.emit("Concat", *names, axis=0)
