"""How a random graph gets one elementwise node, somewhere where it is smooth."""

import numpy as np

from tests.support.random_operators import operator


@operator(
    *(
        "Abs",
        "Asinh",
        "Atan",
        "Celu",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
    ),
    *("LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign"),
    *("Sinh", "Tanh"),
)
def unary(sketch, operator):
    if name := sketch.pick():
        sketch.add(_at_18(sketch, operator, name) or operator, name)


def _at_18(sketch, operator, name):
    """Gelu is a node only since opset 20: put x * (1 + erf(x / sqrt 2)) in its place."""
    if operator != "Gelu":
        return None
    scaled = sketch.add("Mul", name, sketch.constant(0.5**0.5, np.float32))
    grown = sketch.add("Add", sketch.add("Erf", scaled), sketch.constant(1, np.float32))
    sketch.add("Mul", name, grown)
    return "Identity"


@operator("Shrink", "ThresholdedRelu")
def unary_with_bounds(sketch, operator):
    if name := sketch.pick():
        key = "lambd" if operator == "Shrink" else "alpha"
        sketch.add(operator, name, **{key: 0.4})


@operator("Acos", "Asin", "Atanh", "Tan")
def unary_of_small_ones(sketch, operator):
    if (name := sketch.pick()) and (small := sketch.add("Tanh", name)):
        sketch.add(operator, sketch.add("Mul", small, sketch.constant(0.8, np.float32)))


@operator("Acosh")
def unary_of_large_ones(sketch, operator):
    if (name := sketch.pick()) and (soft := sketch.add("Softplus", name)):
        sketch.add(operator, sketch.add("Add", soft, sketch.constant(1.5, np.float32)))


@operator("Log", "Reciprocal", "Sqrt")
def unary_of_positives(sketch, operator):
    if name := sketch.pick():
        soft = sketch.add("Softplus", name)
        if soft:
            sketch.add(operator, sketch.add("Add", soft, sketch.constant(0.5, np.float32)))


@operator("Ceil", "Floor", "Round", "Sign")
def steps(sketch, operator):
    if not (name := sketch.pick()):
        return
    step = sketch.add(operator, name)
    if step and not sketch.add("Add", name, step):
        sketch.unused.append(name)


@operator("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum")
def binary(sketch, operator):
    name = sketch.pick(where=lambda v: operator != "Div" or np.abs(v).min() > 0.2)
    if name is None:
        return
    shape = sketch.values[name].shape
    partners = [
        other
        for node in sketch.nodes
        for other in node.output
        if other != name and sketch.values[other].shape == shape
    ]
    kind = sketch.rng.integers(3)
    if kind == 0 and partners:
        other = partners[sketch.rng.integers(len(partners))]
    elif kind == 1:
        other = sketch.weight(shape[1:])
    else:
        other = sketch.weight([dim if sketch.rng.random() < 0.5 else 1 for dim in shape[1:]])
    # The reference implementations of Mean and Sum want the wide operand first.
    first = operator not in {"Mean", "Sum"} and sketch.rng.random() < 0.5
    sketch.add(operator, *((other, name) if operator == "Div" or first else (name, other)))


@operator("Pow")
def power(sketch, operator):
    if name := sketch.pick():
        exponent = sketch.constant([2.0, 3.0][sketch.rng.integers(2)], np.float32)
        sketch.add("Pow", name, exponent)


@operator("Clip")
def clip(sketch, operator):
    if name := sketch.pick():
        bounds = [sketch.constant(bound, np.float32) for bound in (-0.7, 0.8)]
        kept = sketch.rng.integers(3)
        sketch.add("Clip", name, *(bounds, bounds[:1], ["", bounds[1]])[kept])


@operator("Where")
def where(sketch, operator):
    if not (name := sketch.pick()):
        return
    above = sketch.add("Greater", name, sketch.constant(0.1, np.float32))
    sketch.unused.remove(above)
    sketch.unused.append(name)
    other = sketch.weight(sketch.values[name].shape[1:])
    sketch.add("Where", above, *((name, other) if sketch.rng.random() < 0.5 else (other, name)))


@operator("PRelu")
def prelu(sketch, operator):
    if name := sketch.pick():
        shape = sketch.values[name].shape
        sketch.add("PRelu", name, sketch.weight((shape[1], *[1] * (len(shape) - 2))))
