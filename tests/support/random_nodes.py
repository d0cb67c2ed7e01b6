"""How a random graph gets one node of each operator, somewhere where it is smooth.

Each function finds a tensor that the operator fits, and may do nothing if there is none.
"""

from contextlib import suppress
from functools import partial

import numpy as np

OPERATORS = {}


def operator(*names):
    def register(function):
        OPERATORS.update({name: partial(function, operator=name) for name in names})
        return function

    return register


@operator(
    *("Abs", "Atan", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
    *("LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign"),
    *("Tanh",),
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


@operator("Log", "Reciprocal", "Sqrt")
def unary_of_positives(sketch, operator):
    if name := sketch.pick():
        soft = sketch.add("Softplus", name)
        if soft:
            sketch.add(operator, sketch.add("Add", soft, sketch.constant(0.5, np.float32)))


@operator("Ceil", "Floor", "Round", "Sign")
def steps(sketch, operator):
    if (name := sketch.pick()) and (step := sketch.add(operator, name)):
        sketch.add("Add", name, step)


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
    if name := sketch.pick():
        above = sketch.add("Greater", name, sketch.constant(0.1, np.float32))
        sketch.unused.remove(above)
        other = sketch.weight(sketch.values[name].shape[1:])
        sketch.add(
            "Where", above, *((name, other) if sketch.rng.random() < 0.5 else (other, name))
        )


@operator("PRelu")
def prelu(sketch, operator):
    if name := sketch.pick():
        shape = sketch.values[name].shape
        sketch.add("PRelu", name, sketch.weight((shape[1], *[1] * (len(shape) - 2))))


@operator("Gemm")
def gemm(sketch, operator):
    if not (name := sketch.pick(2)):
        return
    width, wide = sketch.values[name].shape[1], int(sketch.rng.integers(2, 6))
    turned = int(sketch.rng.integers(2))
    weight = sketch.weight((wide, width) if turned else (width, wide))
    bias = [sketch.weight((wide,) if turned else (1, wide))] if sketch.rng.random() < 0.7 else []
    sketch.add("Gemm", name, weight, *bias, transB=turned, alpha=0.7, beta=1.3)


@operator("MatMul")
def matmul(sketch, operator):
    if not (name := sketch.pick(2, 3, 4)):
        return
    shape = sketch.values[name].shape
    if len(shape) > 2 and sketch.rng.random() < 0.5:
        turned = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        sketch.add("MatMul", name, sketch.add("Transpose", name, perm=turned))
        return
    sketch.add("MatMul", name, sketch.weight((shape[-1], int(sketch.rng.integers(2, 5)))))


@operator("Einsum")
def einsum(sketch, operator):
    if name := sketch.pick(3):
        width = sketch.values[name].shape[2]
        sketch.add("Einsum", name, sketch.weight((4, width)), equation="btd,ed->bte")


@operator("Conv")
def conv(sketch, operator):
    if not (name := sketch.pick(3, 4, where=lambda v: min(v.shape[2:]) >= 3)):
        return
    channels, *space = sketch.values[name].shape[1:]
    group = channels if sketch.rng.random() < 0.3 else 1
    out = channels if group > 1 else int(sketch.rng.integers(1, 5))
    kernel = [int(sketch.rng.integers(1, 4)) for _ in space]
    settings = {
        "strides": [int(sketch.rng.integers(1, 3)) for _ in space],
        "pads": [int(sketch.rng.integers(2)) for _ in 2 * space],
        "dilations": [2 if k == 2 and sketch.rng.random() < 0.3 else 1 for k in kernel],
    }
    if sketch.rng.random() < 0.2:
        settings = {"auto_pad": "SAME_UPPER", "strides": settings["strides"]}
    bias = [sketch.weight((out,))] if sketch.rng.random() < 0.5 else []
    weight = sketch.weight((out, channels // group, *kernel), -0.5, 0.5)
    sketch.add("Conv", name, weight, *bias, kernel_shape=kernel, group=group, **settings)


@operator("ConvTranspose")
def conv_transpose(sketch, operator):
    if not (name := sketch.pick(4)):
        return
    channels, *space = sketch.values[name].shape[1:]
    kernel = [int(sketch.rng.integers(2, 4)) for _ in space]
    stride = [int(sketch.rng.integers(1, 3)) for _ in space]
    pads = [int(sketch.rng.integers(2)) for _ in space]
    weight = sketch.weight((channels, int(sketch.rng.integers(1, 4)), *kernel), -0.5, 0.5)
    settings = {"strides": stride, "pads": pads * 2, "kernel_shape": kernel}
    sketch.add("ConvTranspose", name, weight, **settings)


@operator("AveragePool", "MaxPool")
def pool(sketch, operator):
    if not (name := sketch.pick(3, 4, where=lambda v: min(v.shape[2:]) >= 3)):
        return
    space = sketch.values[name].ndim - 2
    kernel = [int(sketch.rng.integers(2, 4)) for _ in range(space)]
    stride = [int(sketch.rng.integers(1, 3)) for _ in range(space)]
    pads = [int(sketch.rng.integers(2))] * (2 * space)
    with suppress(IndexError):  # the reference implementation at times reads beyond the end
        sketch.add(operator, name, kernel_shape=kernel, strides=stride, pads=pads)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(sketch, operator):
    # onnx's reference implementation of GlobalMaxPool reduces the wrong axes of rank 3.
    if name := sketch.pick(4, *([3] if operator == "GlobalAveragePool" else [])):
        sketch.add(operator, name)


@operator("BatchNormalization")
def batch_normalization(sketch, operator):
    if name := sketch.pick(2, 3, 4, where=_varies((0, 2, 3))):
        channels = sketch.values[name].shape[1]
        scale, bias = sketch.weight((channels,), 0.5, 1.5), sketch.weight((channels,))
        sketch.add("BatchNormalization", name, scale, bias, *sketch.statistics(channels))


@operator("LayerNormalization")
def layer_normalization(sketch, operator):
    if name := sketch.pick(2, 3, 4, where=_varies((-1,))):
        width = sketch.values[name].shape[-1]
        scale, bias = sketch.weight((width,), 0.5, 1.5), sketch.weight((width,))
        sketch.add("LayerNormalization", name, scale, bias, axis=-1)


@operator("InstanceNormalization")
def instance_normalization(sketch, operator):
    if name := sketch.pick(3, 4, where=_varies((2, 3))):
        channels = sketch.values[name].shape[1]
        scale, bias = sketch.weight((channels,), 0.5, 1.5), sketch.weight((channels,))
        sketch.add("InstanceNormalization", name, scale, bias)


def _varies(axes):
    """A tiny variance makes a normalization a cliff."""

    def fits(value):
        chosen = tuple(axis for axis in axes if axis < value.ndim)
        return value.var(axis=chosen).min() > 0.05

    return fits


@operator("LogSoftmax", "Softmax")
def softmax(sketch, operator):
    if name := sketch.pick():
        axis = int(sketch.rng.integers(1, sketch.values[name].ndim))
        sketch.add(operator, name, axis=axis)


@operator("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")
def reduce(sketch, operator):
    if name := sketch.pick(3, 4):
        axis = int(sketch.rng.integers(2, sketch.values[name].ndim))
        keep = int(sketch.rng.integers(2))
        sketch.add(operator, name, sketch.constant([axis]), keepdims=keep)


@operator("CumSum")
def cumulative_sum(sketch, operator):
    if name := sketch.pick():
        axis = sketch.constant(int(sketch.rng.integers(1, sketch.values[name].ndim)))
        flags = {"exclusive": int(sketch.rng.integers(2)), "reverse": int(sketch.rng.integers(2))}
        sketch.add("CumSum", name, axis, **flags)


@operator("Reshape")
def reshape(sketch, operator):
    if name := sketch.pick(2, 3, 4):
        shape = sketch.values[name].shape[1:]
        half = [2, -1] if np.prod(shape) % 2 == 0 else [-1]
        sketch.add("Reshape", name, sketch.constant([0, *half]))


@operator("Flatten")
def flatten(sketch, operator):
    if name := sketch.pick(3, 4):
        sketch.add("Flatten", name, axis=1)


@operator("Squeeze", "Unsqueeze")
def squeeze(sketch, operator):
    if (name := sketch.pick(2, 3)) and (
        wide := sketch.add("Unsqueeze", name, sketch.constant([1]))
    ):
        if operator == "Squeeze":
            sketch.add("Squeeze", wide, sketch.constant([1]))


@operator("Transpose")
def transpose(sketch, operator):
    if name := sketch.pick(3, 4):
        rest = sketch.rng.permutation(np.arange(1, sketch.values[name].ndim))
        sketch.add("Transpose", name, perm=[0, *rest.tolist()])


@operator("Concat")
def concat(sketch, operator):
    if name := sketch.pick():
        axis = sketch.values[name].ndim - 1
        sketch.add("Concat", name, sketch.add("Tanh", name), axis=axis)


@operator("Split")
def split(sketch, operator):
    if name := sketch.pick(2, 3, 4, where=lambda v: v.shape[1] >= 2):
        size = sketch.values[name].shape[1]
        sketch.add("Split", name, sketch.constant([1, size - 1]), outputs=2, axis=1)
        if sketch.rng.random() < 0.5 and len(sketch.unused) > 1:
            sketch.unused.pop()


@operator("Slice")
def slices(sketch, operator):
    if name := sketch.pick(where=lambda v: v.shape[-1] >= 3):
        bounds = [[1], [2**31], [-1], [int(sketch.rng.integers(1, 3))]]
        if sketch.rng.random() < 0.3:
            bounds = [[-1], [-(2**31)], [-1], [-1]]
        sketch.add("Slice", name, *(sketch.constant(bound) for bound in bounds))


@operator("Gather")
def gather(sketch, operator):
    if name := sketch.pick():
        axis = sketch.values[name].ndim - 1
        chosen = sketch.rng.integers(0, sketch.values[name].shape[axis], (2,))
        sketch.add("Gather", name, sketch.constant(chosen), axis=axis)


@operator("Pad")
def pad(sketch, operator):
    if name := sketch.pick():
        rank = sketch.values[name].ndim
        amounts = [0] * rank + [0] * rank
        amounts[rank - 1], amounts[-1] = 1, int(sketch.rng.integers(3))
        sketch.add("Pad", name, sketch.constant(amounts), sketch.constant(0.3, np.float32))


@operator("Expand")
def expand(sketch, operator):
    if (name := sketch.pick(2, 3)) and (
        wide := sketch.add("Unsqueeze", name, sketch.constant([1]))
    ):
        shape = sketch.values[wide].shape
        sketch.add("Expand", wide, sketch.constant([1, 2, *shape[2:]]))


@operator("Tile")
def tile(sketch, operator):
    if name := sketch.pick():
        repeats = [1, *sketch.rng.integers(1, 3, sketch.values[name].ndim - 1)]
        sketch.add("Tile", name, sketch.constant(repeats))


@operator("Resize")
def resize(sketch, operator):
    if name := sketch.pick(4, where=lambda v: max(v.shape[2:]) <= 8):
        scales = sketch.constant([1, 1, 2, 2], np.float32)
        settings = {"mode": "nearest", "nearest_mode": "floor"}
        sketch.add(
            "Resize", name, "", scales, coordinate_transformation_mode="asymmetric", **settings
        )


@operator("DepthToSpace", "SpaceToDepth")
def depth(sketch, operator):
    def fits(value):
        return (
            value.shape[1] % 4 == 0
            if operator == "DepthToSpace"
            else value.shape[2] % 2 == value.shape[3] % 2 == 0
        )

    if name := sketch.pick(4, where=fits):
        sketch.add(operator, name, blocksize=2)
