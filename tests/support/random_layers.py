"""How a random graph gets one matrix product, convolution, pool, normalization or reduction."""

from contextlib import suppress

from tests.support.random_operators import operator


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
    pads = [int(sketch.rng.integers(2)) if size > 1 else 0 for size in space]
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


def _any(_value):
    return True


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


@operator("LpNormalization")
def lp_normalization(sketch, operator):
    if name := sketch.pick(2, 3, where=lambda v: (v**2).sum(-1).min() > 0.1):
        sketch.add(operator, name, axis=-1, p=2)


@operator(
    *("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
def reduce(sketch, operator):
    if name := sketch.pick(3, 4, where=_varies((2, 3)) if operator == "ReduceL2" else _any):
        axis = int(sketch.rng.integers(2, sketch.values[name].ndim))
        keep = int(sketch.rng.integers(2))
        sketch.add(operator, name, sketch.constant([axis]), keepdims=keep)


@operator("ReduceLogSum")
def reduce_log_sum(sketch, operator):
    if (name := sketch.pick(3, 4)) and (soft := sketch.add("Softplus", name)):
        sketch.add(operator, soft, sketch.constant([2]), keepdims=0)
