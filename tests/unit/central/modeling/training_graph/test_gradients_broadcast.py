"""Each rule of an operator of several tensors: arithmetic and matrix products."""

import numpy as np
import pytest
import torch

from tests.support.gradient_check import Case, check, gradients_in_float32, values

ROW, COLUMN, ONE = values(3), values(2, 1), values(1)
POSITIVE = values(2, 3, low=0.5, high=2.0)


def binary(operator, function, w, shape=(2, 3), low=-2.0):
    return Case(
        name=f"{operator} with {np.shape(w)}",
        body=f"y = {operator}(input, w)",
        shape=shape,
        parameters={"w": w},
        torch=lambda x, w: function(x, w),  # noqa: PLW0108 - torch's functions name their arguments
        low=low,
    )


def swapped(operator, function, w, shape=(2, 3), low=-2.0):
    return Case(
        name=f"{operator} behind {np.shape(w)}",
        body=f"y = {operator}(w, input)",
        shape=shape,
        parameters={"w": w},
        torch=lambda x, w: function(w, x),
        low=low,
    )


ARITHMETIC = [
    *(binary("Add", torch.add, w) for w in (ROW, COLUMN, ONE, values(1, 2, 1))),
    binary("Add", torch.add, values(2, 1, 1, 3), shape=(1, 3)),
    *(binary("Sub", torch.sub, w) for w in (ROW, COLUMN)),
    swapped("Sub", torch.sub, ROW),
    *(binary("Mul", torch.mul, w) for w in (ROW, COLUMN, ONE)),
    Case("a square", "y = Mul(input, input)", torch=lambda x: x * x),
    *(binary("Div", torch.div, w) for w in (POSITIVE, np.abs(COLUMN) + 0.5)),
    swapped("Div", torch.div, ROW, low=0.5),
    *(binary("Max", torch.maximum, w) for w in (ROW, ONE)),
    binary("Min", torch.minimum, COLUMN),
    binary("Pow", torch.pow, values(3, low=0.5), low=0.5),
    binary("Pow", torch.pow, values(2, 1, low=0.5), low=0.5),
    swapped("Pow", torch.pow, values(3, low=0.5, high=2)),
    Case(
        "Pow with an integer exponent",
        "y = Pow(input, three)",
        constants={"three": np.int64(3)},
        torch=lambda x: x**3,
    ),
    *(
        Case(
            f"Pow with {exponent}",
            "y = Pow(input, exponent)",
            constants={"exponent": np.array(exponent, np.float32)},
            torch=lambda x, exponent=exponent: x**exponent,
            low=0.5,
        )
        for exponent in (0.0, 1.0, 2.0, -0.5, 3.0)
    ),
    Case(
        "Pow with constant exponents, one of them zero",
        "y = Pow(input, exponents)",
        constants={"exponents": np.array([0, 2, 3], np.float32)},
        torch=lambda x: x ** torch.tensor([0.0, 2.0, 3.0]),
    ),
    Case(
        "PRelu",
        "y = PRelu(input, slope)",
        shape=(2, 3),
        parameters={"slope": values(2, 1)},
        torch=lambda x, slope: torch.nn.functional.prelu(x, slope.reshape(-1)),
    ),
    *(
        Case(
            f"{operator} of three",
            f"y = {operator}(input, w, b, input)",
            shape=(2, 3),
            parameters={"w": ROW, "b": COLUMN},
        )
        for operator in ("Sum", "Mean", "Max", "Min")
    ),
    Case("Max of one", "y = Max(input)", torch=lambda x: x * 1),
    Case(
        "Where",
        "c = Greater(input, zero) a = Mul(input, w) y = Where(c, a, b)",
        shape=(2, 3),
        parameters={"w": ROW, "b": COLUMN},
        constants={"zero": np.float32(0)},
        torch=lambda x, w, b: torch.where(x > 0, x * w, b),
    ),
    Case(
        "Expand",
        "a = Expand(w, shape) b = Mul(a, input) y = Expand(b, wider)",
        shape=(2, 3),
        parameters={"w": COLUMN},
        constants={"shape": np.array([2, 3]), "wider": np.array([4, 1, 1, 3])},
        torch=lambda x, w: (w.expand(2, 3) * x).expand(4, -1, 2, 3),
    ),
]


def gemm(attributes, a, b, c=None):
    names = "a, w" if c is None else "a, w, c"
    parameters = {"w": b} if c is None else {"w": b, "c": c}
    turned = "Transpose" if "transA = 1" in attributes else "Identity"
    return Case(
        f"Gemm {attributes} of {a} {np.shape(b)} {np.shape(c) if c is not None else ''}",
        f"a = {turned}(input) y = Gemm <{attributes}> ({names})",
        shape=a,
        parameters=parameters,
    )


def matmul(shape, w):
    return Case(
        f"MatMul {shape} {np.shape(w)}",
        "y = MatMul(input, w)",
        shape=shape,
        parameters={"w": w},
        torch=lambda x, w: x @ w,
    )


PRODUCTS = [
    gemm("alpha = 0.5", (3,), values(3, 4)),
    gemm("transB = 1, beta = 2.0", (3,), values(4, 3), values(4)),
    gemm("transA = 1", (3,), values(3, 4), values(1, 4)),
    gemm("transA = 1, transB = 1, alpha = 2.0", (3,), values(4, 3), values(1)),
    matmul((3,), values(3, 4)),
    matmul((2, 3), values(3, 4)),
    matmul((2, 3), values(2, 3, 4)[:1]),
    matmul((2, 2, 3), values(2, 3, 4)),
    matmul((2, 2, 3), values(1, 1, 3, 4)),
    matmul((2, 3), values(3)),
    matmul((3,), values(3)),
    matmul((3,), values(2, 3, 4)),
    Case(
        "MatMul of a vector with what follows the batch",
        "y = MatMul(w, input)",
        shape=(3, 2),
        parameters={"w": values(3)},
        torch=lambda x, w: w @ x,
    ),
    Case(
        "MatMul of two vectors",
        "s = ReduceSum <keepdims = 0> (input, first) p = MatMul(s, w) y = Mul(p, input)",
        shape=(3,),
        parameters={"w": values(3)},
        constants={"first": np.array([0])},
        torch=lambda x, w: (x.sum(0) @ w) * x,
    ),
    Case(
        "attention",
        "t = Transpose <perm = [0, 2, 1]> (input) s = MatMul(input, t) y = MatMul(s, w)",
        shape=(2, 3),
        parameters={"w": values(2, 4)},
        torch=lambda x, w: x @ x.transpose(1, 2) @ w,
    ),
    *(
        Case(
            f"Einsum {equation}",
            f'y = Einsum <equation = "{equation}"> (input, w)',
            shape=shape,
            parameters={"w": w},
            torch=lambda x, w, equation=equation: torch.einsum(equation, x, w),
        )
        for equation, shape, w in (
            ("bij,jk->bik", (2, 3), values(3, 2)),
            ("bij,kj->bk", (2, 3), values(2, 3)),
            ("bij,ik->bj", (2, 3), values(2, 2)),
        )
    ),
]


@pytest.mark.parametrize("case", ARITHMETIC, ids=lambda case: case.name)
def test_arithmetic_has_the_gradient_of_differences_and_of_torch(case):
    check(case)


@pytest.mark.parametrize("case", PRODUCTS, ids=lambda case: case.name)
def test_a_product_has_the_gradient_of_differences_and_of_torch(case):
    check(case)


@pytest.mark.parametrize(
    ("operator", "function"), [("Max", torch.maximum), ("Min", torch.minimum)]
)
def test_equal_values_share_the_gradient_of_an_extreme_as_in_torch(operator, function):
    case = Case("tie", f"y = {operator}(input, w)", parameters={"w": values(3)})
    tied = np.broadcast_to(case.parameters["w"], (2, 3)).astype(np.float32).copy()
    got = gradients_in_float32(case, tied)
    x, w = (torch.from_numpy(np.array(a)).requires_grad_() for a in (tied, case.parameters["w"]))
    function(x, w).sum().backward()
    np.testing.assert_allclose(got["input"], x.grad.numpy())
    np.testing.assert_allclose(got["w"], w.grad.numpy())
