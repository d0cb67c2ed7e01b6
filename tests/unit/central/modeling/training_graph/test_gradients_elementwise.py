"""Each rule of a function of one tensor, by itself."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support.gradient_check import Case, check, values

W = {"w": values(3, low=0.5, high=1.5)}


def unary(text, function, low=-2.0, high=2.0):
    return Case(
        name=text,
        body=f"t = Mul(input, w) y = {text}",
        parameters=W,
        torch=lambda x, w: function(x * w),
        low=low,
        high=high,
    )


CASES = [
    unary("Identity(t)", lambda t: t),
    unary("Neg(t)", lambda t: -t),
    unary("Abs(t)", torch.abs),
    unary("Exp(t)", torch.exp),
    unary("Log(t)", torch.log, 0.5, 3),
    unary("Sqrt(t)", torch.sqrt, 0.5, 3),
    unary("Reciprocal(t)", torch.reciprocal, 0.5, 3),
    unary("Erf(t)", torch.erf),
    unary("Sin(t)", torch.sin),
    unary("Cos(t)", torch.cos),
    unary("Tan(t)", torch.tan, -0.8, 0.8),
    unary("Asin(t)", torch.asin, -0.6, 0.6),
    unary("Acos(t)", torch.acos, -0.6, 0.6),
    unary("Atan(t)", torch.atan),
    unary("Sinh(t)", torch.sinh),
    unary("Cosh(t)", torch.cosh),
    unary("Asinh(t)", torch.asinh),
    unary("Acosh(t)", torch.acosh, 3, 5),
    unary("Atanh(t)", torch.atanh, -0.6, 0.6),
    unary("Relu(t)", torch.relu),
    unary("LeakyRelu <alpha = 0.2> (t)", lambda t: functional.leaky_relu(t, np.float32(0.2))),
    unary("ThresholdedRelu <alpha = 0.5> (t)", lambda t: torch.where(t > 0.5, t, 0.0)),
    unary("Elu <alpha = 1.5> (t)", lambda t: functional.elu(t, 1.5)),
    unary("Celu <alpha = 1.5> (t)", lambda t: functional.celu(t, 1.5)),
    unary("Selu(t)", functional.selu),
    unary("Sigmoid(t)", torch.sigmoid),
    unary("HardSigmoid <alpha = 0.1666666716> (t)", functional.hardsigmoid, -5, 5),
    unary("HardSwish(t)", functional.hardswish, -5, 5),
    unary("Tanh(t)", torch.tanh),
    unary("Softplus(t)", functional.softplus),
    unary("Softsign(t)", functional.softsign),
    unary("Mish(t)", functional.mish),
    unary("Shrink <lambd = 0.7> (t)", lambda t: functional.hardshrink(t, np.float32(0.7).item())),
    unary("Cast <to = 1> (t)", lambda t: t),
    Case(
        "Clip",
        "t = Mul(input, w) y = Clip(t, low, high)",
        parameters=W,
        constants={"low": np.float32(-0.5), "high": np.float32(0.75)},
        torch=lambda x, w: (x * w).clamp(-0.5, 0.75),
    ),
    Case(
        "Clip from above",
        "t = Mul(input, w) y = Clip(t, , high)",
        parameters=W,
        constants={"high": np.float32(0.75)},
        torch=lambda x, w: (x * w).clamp(max=0.75),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_function_of_one_tensor_has_the_gradient_of_differences_and_of_torch(case):
    check(case)
