"""Gradients of convolutions of every shape agree with torch and with differences."""

import numpy as np
import pytest
from single_node_gradients import (
    TORCH_TOLERANCE,
    Float32,
    Node,
    check_against_differences,
    check_against_torch,
    check_forward_is_kept,
    relative,
)
from torch.nn import functional


def _values(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32) * 0.3


def conv(example, weight, bias=True, **attributes):
    parameters = {"weight": _values(*weight)}
    if bias:
        parameters["bias"] = _values(weight[0])
    return Node("Conv", example, parameters, attributes)


def transposed(example, weight, bias=True, **attributes):
    parameters = {"weight": _values(*weight)}
    if bias:
        parameters["bias"] = _values(weight[1] * attributes.get("group", 1))
    return Node("ConvTranspose", example, parameters, attributes)


def torch_conv(node):
    attributes = node.attributes
    rank = len(node.example) - 1
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    pads = attributes.get("pads", [0] * 2 * rank)
    sides = [side for axis in reversed(range(rank)) for side in (pads[axis], pads[rank + axis])]

    def run(x, weight, bias=None):
        return function(
            functional.pad(x, sides),
            weight,
            bias,
            stride=tuple(attributes.get("strides", [1] * rank)),
            dilation=tuple(attributes.get("dilations", [1] * rank)),
            groups=attributes.get("group", 1),
        )

    return run


def torch_transposed(node):
    attributes = node.attributes
    rank = len(node.example) - 1
    name = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")[rank - 1]
    pads = attributes.get("pads", [0] * 2 * rank)

    def run(x, weight, bias=None):
        y = getattr(functional, name)(
            x,
            weight,
            bias,
            stride=tuple(attributes.get("strides", [1] * rank)),
            output_padding=tuple(attributes.get("output_padding", [0] * rank)),
            dilation=tuple(attributes.get("dilations", [1] * rank)),
            groups=attributes.get("group", 1),
        )
        for axis in range(rank):
            y = y.narrow(2 + axis, pads[axis], y.shape[2 + axis] - pads[axis] - pads[rank + axis])
        return y

    return run


CONVOLUTIONS = {
    "image": conv((3, 7, 6), (4, 3, 3, 3), pads=[1, 1, 1, 1]),
    "no bias": conv((3, 7, 6), (4, 3, 3, 3), bias=False),
    "many channels": conv((17, 6, 6), (5, 17, 3, 3), pads=[1, 1, 1, 1]),
    "many channels, stride": conv((17, 7, 7), (5, 17, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    "asymmetric pads": conv((3, 7, 6), (4, 3, 3, 3), pads=[0, 2, 1, 0]),
    "stride that does not divide": conv((3, 8, 9), (4, 3, 3, 3), strides=[3, 2]),
    "stride beyond the kernel": conv((3, 9, 9), (4, 3, 2, 2), strides=[3, 4]),
    "stride beyond the kernel, many channels": conv((17, 9, 9), (4, 17, 2, 2), strides=[3, 4]),
    "dilations": conv((3, 9, 9), (4, 3, 3, 2), dilations=[2, 3], pads=[2, 1, 0, 1]),
    "dilations and strides": conv((3, 11, 10), (4, 3, 3, 2), dilations=[2, 3], strides=[2, 3]),
    "point": conv((6, 5, 5), (4, 6, 1, 1)),
    "point, more channels than positions": conv((20, 2, 2), (4, 20, 1, 1)),
    "point, stride": conv((6, 5, 5), (4, 6, 1, 1), strides=[2, 2]),
    "point, padded": conv((6, 5, 5), (4, 6, 1, 1), pads=[1, 1, 1, 1]),
    "groups": conv((6, 6, 6), (4, 3, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "groups, stride": conv((6, 7, 6), (4, 3, 3, 3), group=2, strides=[2, 2]),
    "depthwise": conv((5, 6, 7), (5, 1, 3, 3), group=5, pads=[1, 1, 1, 1]),
    "depthwise, asymmetric": conv((5, 6, 7), (5, 1, 3, 3), group=5, pads=[2, 0, 0, 1]),
    "depthwise, stride": conv((5, 8, 9), (5, 1, 3, 3), group=5, pads=[1, 1, 1, 1], strides=[2, 2]),
    "depthwise, dilation": conv(
        (5, 8, 9), (5, 1, 3, 3), group=5, pads=[2, 2, 2, 2], dilations=[2, 2]
    ),
    "depthwise, multiplier": conv((3, 6, 7), (6, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    "depthwise, wide": conv((2, 3, 130), (2, 1, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "depthwise, no padding": conv((5, 6, 7), (5, 1, 3, 3), group=5),
    "large kernel": conv((2, 11, 10), (3, 2, 8, 8), pads=[3, 4, 4, 3]),
    "large kernel, stride": conv((2, 16, 15), (3, 2, 8, 8), pads=[3, 4, 4, 3], strides=[3, 2]),
    "large kernel, left over": conv((2, 16, 15), (3, 2, 8, 8), strides=[3, 4]),
    "large kernel, groups": conv((4, 11, 10), (6, 2, 8, 8), group=2, pads=[3, 4, 4, 3]),
    "large kernel, groups, left over": conv((4, 12, 11), (6, 2, 8, 8), group=2, strides=[3, 2]),
    "padding beyond the kernel": conv((3, 5, 5), (4, 3, 3, 3), pads=[3, 3, 3, 3]),
    "sequence": conv((3, 11), (4, 3, 4), pads=[1, 2], strides=[2]),
    "sequence, depthwise": conv((3, 11), (3, 1, 4), group=3, pads=[1, 2], strides=[2]),
    "sequence, long kernel": conv((1, 90), (2, 1, 60), strides=[3]),
    "volume": conv((2, 5, 4, 6), (3, 2, 3, 2, 3), pads=[1, 0, 1, 1, 1, 1], strides=[2, 1, 2]),
    "volume, depthwise": conv((2, 5, 4, 6), (2, 1, 3, 2, 3), group=2, pads=[1, 0, 1, 1, 1, 1]),
    "turned kernel": conv((65, 4, 5), (3, 65, 3, 3), pads=[1, 1, 1, 1]),
    "turned kernel, dilated": conv((65, 5, 5), (3, 65, 3, 3), pads=[2, 3, 3, 2], dilations=[2, 2]),
    "turned sequence": conv((65, 6), (3, 65, 3), pads=[0, 2]),
    "few channels, dilated": conv((3, 9, 11), (4, 3, 3, 3), dilations=[2, 3], strides=[1, 2]),
    "one position": conv((3, 3, 3), (4, 3, 3, 3)),
}

TRANSPOSED = {
    "image": transposed((3, 5, 4), (3, 4, 3, 3)),
    "no bias": transposed((3, 5, 4), (3, 4, 3, 3), bias=False),
    "stride": transposed((3, 5, 4), (3, 4, 3, 3), strides=[2, 3], pads=[1, 1, 1, 1]),
    "output padding": transposed(
        (3, 5, 4), (3, 4, 3, 3), strides=[2, 3], pads=[1, 1, 1, 1], output_padding=[1, 2]
    ),
    "asymmetric pads": transposed((3, 5, 4), (3, 4, 3, 3), strides=[2, 2], pads=[0, 1, 2, 1]),
    "dilations": transposed((3, 5, 4), (3, 4, 3, 2), strides=[2, 1], dilations=[2, 3]),
    "groups": transposed((4, 5, 4), (4, 3, 3, 3), group=2, strides=[2, 2]),
    "depthwise": transposed((4, 5, 4), (4, 1, 4, 4), group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    "point": transposed((3, 5, 4), (3, 4, 1, 1)),
    "many channels": transposed((5, 5, 4), (5, 17, 3, 3), strides=[2, 2]),
    "sequence": transposed((3, 7), (3, 4, 4), strides=[3], output_padding=[2]),
    "volume": transposed(
        (2, 3, 3, 3), (2, 3, 2, 3, 2), strides=[2, 1, 2], pads=[0, 1, 0, 0, 1, 1]
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradients_of_a_convolution_agree_with_torch(name):
    node = CONVOLUTIONS[name]
    check_against_torch(node, torch_conv(node))


@pytest.mark.parametrize("name", TRANSPOSED)
def test_gradients_of_a_transposed_convolution_agree_with_torch(name):
    node = TRANSPOSED[name]
    check_against_torch(node, torch_transposed(node))


DIFFERENT = {
    **{
        name: CONVOLUTIONS[name]
        for name in (
            "image",
            "stride that does not divide",
            "dilations",
            "point",
            "depthwise",
            "depthwise, stride",
            "sequence",
        )
    },
    **{f"transposed, {name}": TRANSPOSED[name] for name in ("image", "stride", "output padding")},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_gradients_of_convolutions_agree_with_differences(name):
    check_against_differences(DIFFERENT[name])


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
def test_automatic_pads_mean_what_they_mean_to_the_runtime(automatic, strides):
    node = conv((3, 8, 9), (4, 3, 3, 2), auto_pad=automatic, strides=strides)
    check_forward_is_kept(node)
    check_against_differences(node)


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_pads_of_a_transposed_convolution_are_kept(automatic):
    node = transposed((3, 4, 5), (3, 4, 3, 3), auto_pad=automatic, strides=[2, 2])
    check_forward_is_kept(node)


def test_an_output_shape_of_a_transposed_convolution_is_kept():
    node = transposed((3, 4, 5), (3, 4, 3, 3), output_shape=[8, 10], strides=[2, 2])
    check_forward_is_kept(node)
    stated = Float32(node).model.graph.node
    kept = next(item for item in stated if item.op_type == "ConvTranspose")
    assert {"output_shape", "auto_pad"}.isdisjoint(item.name for item in kept.attribute)


def test_a_frozen_kernel_still_passes_the_gradient_to_the_input():
    free = conv((3, 7, 6), (4, 3, 3, 3), bias=False, pads=[1, 1, 1, 1])
    fixed = Node("Conv", free.example, {}, free.attributes, free.parameters)
    rng = np.random.default_rng(3)
    x, outer = rng.standard_normal((2, 3, 7, 6)), rng.standard_normal((2, 4, 7, 6))
    expected = Float32(free).run(x, outer)["d.input"]
    assert relative(Float32(fixed).run(x, outer)["d.input"], expected) < TORCH_TOLERANCE
