"""Gradients of matrix products."""

from collections.abc import Sequence

import onnx

from central.modeling.training_graph.builder import Dimension, GraphBuilder, Shape
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.nodes import attribute, optional_input
from central.modeling.training_graph.rules.registry import Gradient, rule

_MATRIX = 2


@rule("Gemm")
def _gemm(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    a, b, g = node.input[0], node.input[1], outer[0] or ""
    turned_a, turned_b = attribute(node, "transA", 0), attribute(node, "transB", 0)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    found: list[Gradient] = [None, None, None]
    if a in builder.needed:
        found[0] = (
            builder.emit("Gemm", b, g, alpha=alpha, transA=turned_b, transB=1)
            if turned_a
            else builder.emit("Gemm", g, b, alpha=alpha, transB=1 - turned_b)
        )
    if b in builder.needed:
        found[1] = (
            builder.emit("Gemm", g, a, alpha=alpha, transA=1, transB=turned_a)
            if turned_b
            else builder.emit("Gemm", a, g, alpha=alpha, transA=1 - turned_a)
        )
    bias = optional_input(node, 2)
    if bias in builder.needed and bias is not None:
        scaled = g if beta == 1 else builder.emit("Mul", g, builder.scalar(beta, bias))
        found[2] = builder.unbroadcast(scaled, node.output[0], bias)
    return found


@rule("MatMul")
def _matmul(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    a, b = node.input
    if builder.rank(a) == 1 or builder.rank(b) == 1:
        return _vector_product(builder, node, outer[0] or "")
    if builder.rank(b) == _MATRIX:
        return _linear(builder, node, outer[0] or "")
    return _batched(builder, (a, b), builder.shape(node.output[0]), outer[0] or "")


def _linear(builder: GraphBuilder, node: onnx.NodeProto, g: str) -> Sequence[Gradient]:
    """A stack of rows times one matrix: its gradient is one product, not one for each row."""
    x, matrix = node.input
    found: list[Gradient] = [None, None]
    if x in builder.needed:
        found[0] = (
            builder.emit("Gemm", g, matrix, transB=1)
            if builder.rank(x) == _MATRIX
            else builder.emit("MatMul", g, _turned(builder, matrix, _MATRIX))
        )
    if matrix in builder.needed:
        inside, outside = builder.static(matrix)
        if builder.rank(x) > _MATRIX:
            x = builder.emit("Reshape", x, builder.integers(-1, inside))
            g = builder.emit("Reshape", g, builder.integers(-1, outside))
        found[1] = builder.emit("Gemm", x, g, transA=1)
    return found


def _batched(
    builder: GraphBuilder, operands: tuple[str, str], wide: Shape, g: str
) -> list[Gradient]:
    a, b = operands
    shape_a, shape_b = builder.shape(a), builder.shape(b)
    found: list[Gradient] = [None, None]
    if a in builder.needed:
        product = builder.emit("MatMul", g, _turned(builder, b, len(shape_b)))
        found[0] = builder.sum_to(product, wide[:-2] + shape_a[-2:], shape_a)
    if b in builder.needed:
        product = builder.emit("MatMul", _turned(builder, a, len(shape_a)), g)
        found[1] = builder.sum_to(product, wide[:-2] + shape_b[-2:], shape_b)
    return found


def _vector_product(builder: GraphBuilder, node: onnx.NodeProto, g: str) -> Sequence[Gradient]:
    """A vector on the left is a matrix of one row, on the right one of one column."""
    rows = [-2] if builder.rank(node.input[0]) == 1 else []
    columns = [-1] if builder.rank(node.input[1]) == 1 else []
    a = _as_matrix(builder, node.input[0], 0) if rows else node.input[0]
    b = _as_matrix(builder, node.input[1], 1) if columns else node.input[1]
    wide = list(builder.shape(node.output[0]))
    if rows:
        wide.insert(len(wide) - (not columns), 1)
    if columns:
        wide.append(1)
    g = builder.emit("Unsqueeze", g, builder.integers(*rows, *columns))
    found = _batched(builder, (a, b), tuple(wide), g)
    return [
        builder.reshape(gradient, name) if isinstance(gradient, str) else None
        for gradient, name in zip(found, node.input, strict=True)
    ]


def _as_matrix(builder: GraphBuilder, name: str, axis: int) -> str:
    matrix = builder.emit("Unsqueeze", name, builder.integers(axis))
    shape = builder.shape(name)
    builder.describe(matrix, (*shape, 1) if axis else (1, *shape), builder.dtype(name))
    if name in builder.needed:
        builder.needed.add(matrix)
    return matrix


def _turned(builder: GraphBuilder, name: str, rank: int) -> str:
    return builder.emit("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


@rule("Einsum")
def _einsum(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    equation = attribute(node, "equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(term)) < len(term) for term in terms):
        reason = f"the equation {equation!r} has no arrow, an ellipsis or a diagonal"
        raise UnsupportedModelError(reason)
    sizes: dict[str, Dimension] = {}
    for term, name in zip(terms, node.input, strict=True):
        for letter, size in zip(term, builder.shape(name), strict=True):
            if sizes.setdefault(letter, size) != size:
                reason = f"the equation {equation!r} broadcasts {letter!r}"
                raise UnsupportedModelError(reason)
    return [
        _einsum_operand(builder, node, terms, result, position, outer[0] or "")
        if name in builder.needed
        else None
        for position, name in enumerate(node.input)
    ]


def _einsum_operand(  # noqa: PLR0913, PLR0917 - the parts of one equation
    builder: GraphBuilder,
    node: onnx.NodeProto,
    terms: Sequence[str],
    result: str,
    position: int,
    g: str,
) -> str:
    others = [index for index in range(len(terms)) if index != position]
    lettered = "".join([result, *(terms[index] for index in others)])
    own, name = terms[position], node.input[position]
    kept = "".join(letter for letter in own if letter in lettered)
    left = ",".join([result, *(terms[index] for index in others)])
    inputs = [node.input[index] for index in others]
    product = builder.emit("Einsum", g, *inputs, equation=f"{left}->{kept}")
    summed = [axis for axis, letter in enumerate(own) if letter not in lettered]
    if summed:  # what only this operand has was summed over: it gets the gradient everywhere
        product = builder.emit("Unsqueeze", product, builder.integers(*summed))
        product = builder.emit("Expand", product, builder.shape_of(name))
    return product
