"""Gradients of pools agree with torch and with differences, ties and overhangs included."""

import numpy as np
import pytest
from single_node_gradients import (
    Float32,
    Node,
    check_against_differences,
    check_against_torch,
    check_forward_is_kept,
    plain_output,
)
from torch.nn import functional

from central.modeling.training_graph.errors import UnsupportedModelError


def pool(kind, example, kernel, **attributes):
    return Node(kind, example, {}, {"kernel_shape": kernel, **attributes})


def torch_max(kernel, strides=None, pads=None, dilations=None, ceil_mode=0):
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[
        len(kernel) - 1
    ]
    rank = len(kernel)
    return lambda x: function(
        x,
        kernel,
        stride=strides or [1] * rank,
        padding=pads or [0] * rank,
        dilation=dilations or [1] * rank,
        ceil_mode=bool(ceil_mode),
    )


def torch_average(kernel, strides=None, pads=None, ceil_mode=0, count_include_pad=0):
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[
        len(kernel) - 1
    ]
    rank = len(kernel)
    return lambda x: function(
        x,
        kernel,
        stride=strides or [1] * rank,
        padding=pads or [0] * rank,
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
    )


MAXIMA = {
    "disjoint": {"kernel": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel": [3, 3], "strides": [2, 2], "pads": [1, 1]},
    "overlapping at every position": {"kernel": [3, 2]},
    "gaps between windows": {"kernel": [2, 2], "strides": [3, 4]},
    "dilations": {"kernel": [2, 3], "strides": [2, 1], "dilations": [2, 2]},
    "ceil mode": {"kernel": [2, 3], "strides": [2, 2], "ceil_mode": 1},
    "sequence": {"kernel": [3], "strides": [2], "pads": [1]},
    "volume": {"kernel": [2, 3, 2], "strides": [2, 2, 1], "pads": [0, 1, 0]},
}

AVERAGES = {
    "disjoint": {"kernel": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel": [3, 3], "strides": [2, 2], "pads": [1, 1]},
    "padding counted": {
        "kernel": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1],
        "count_include_pad": 1,
    },
    "gaps between windows": {"kernel": [2, 2], "strides": [3, 4]},
    "ceil mode": {"kernel": [2, 3], "strides": [2, 2], "ceil_mode": 1},
    "ceil mode, padded": {"kernel": [3, 3], "strides": [2, 2], "pads": [1, 1], "ceil_mode": 1},
    "ceil mode, padding counted": {
        "kernel": [3, 3],
        "strides": [2, 2],
        "pads": [1, 1],
        "ceil_mode": 1,
        "count_include_pad": 1,
    },
    "sequence": {"kernel": [3], "strides": [2], "pads": [1]},
    "volume": {"kernel": [2, 3, 2], "strides": [2, 2, 1], "pads": [0, 1, 0]},
}

_EXAMPLES = {1: (3, 9), 2: (3, 8, 7), 3: (2, 5, 6, 4)}


def _node(kind, shape):
    attributes = {key: value for key, value in shape.items() if key != "kernel"}
    if "pads" in attributes:
        attributes["pads"] = attributes["pads"] * 2
    return pool(kind, _EXAMPLES[len(shape["kernel"])], shape["kernel"], **attributes)


def distinct(rng, shape):
    """Values far enough apart for differences to keep each maximum."""
    return rng.permutation(int(np.prod(shape))).reshape(shape) * 0.01


def ties(rng, shape):
    """Few different values, many of them equal within a window."""
    return rng.integers(0, 2, shape).astype(np.float64)


@pytest.mark.parametrize("name", MAXIMA)
def test_gradients_of_a_max_pool_agree_with_torch(name):
    check_against_torch(_node("MaxPool", MAXIMA[name]), torch_max(**MAXIMA[name]))


@pytest.mark.parametrize("name", ["disjoint", "overlapping", "ceil mode"])
def test_one_of_several_equal_maxima_gets_the_gradient(name):
    node = _node("MaxPool", MAXIMA[name])
    check_against_torch(node, torch_max(**MAXIMA[name]), inputs=ties)


@pytest.mark.parametrize("name", AVERAGES)
def test_gradients_of_an_average_pool_agree_with_torch(name):
    check_against_torch(_node("AveragePool", AVERAGES[name]), torch_average(**AVERAGES[name]))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("MaxPool", MAXIMA["disjoint"]),
        ("MaxPool", MAXIMA["overlapping"]),
        ("AveragePool", AVERAGES["disjoint"]),
    ],
)
def test_gradients_of_pools_agree_with_differences(kind, shape):
    if kind == "MaxPool":
        check_scattering_is_linear(_node(kind, shape))
    else:
        check_against_differences(_node(kind, shape))


def check_scattering_is_linear(node):
    """Differences in float32 are exact enough where the pool picks values."""
    rig, rng = Float32(node), np.random.default_rng(2)
    x = distinct(rng, (2, *node.example)).astype(np.float32)
    outer = rng.standard_normal(plain_output(node, x).shape)
    gradient = rig.run(x, outer)["d.input"]
    for place in np.argwhere(gradient)[::5]:
        moved = x.copy()
        moved[tuple(place)] += 0.004
        change = (rig.run(moved, outer)["logits"] - rig.run(x, outer)["logits"]) * outer
        assert abs(change.sum() / 0.004 - gradient[tuple(place)]) < 1e-3


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_pads_of_pools_give_the_gradient_of_stated_ones(kind, automatic):
    node = pool(kind, (3, 8, 7), [3, 2], auto_pad=automatic, strides=[2, 3])
    pads = {"SAME_UPPER": [0, 0, 1, 1], "SAME_LOWER": [1, 1, 0, 0], "VALID": [0, 0, 0, 0]}[
        automatic
    ]
    stated = pool(kind, (3, 8, 7), [3, 2], pads=pads, strides=[2, 3])
    check_forward_is_kept(node)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 8, 7))
    shape = plain_output(node, x).shape
    outer = rng.standard_normal(shape)
    expected = Float32(stated).run(x, outer)["d.input"]
    assert np.allclose(Float32(node).run(x, outer)["d.input"], expected)
    assert np.isclose(expected.sum(), outer.sum(), rtol=1e-4)


@pytest.mark.parametrize("example", [(3, 9), (3, 5, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
def test_gradients_of_global_pools_agree_with_torch(kind, example):
    axes = tuple(range(2, 1 + len(example)))

    def function(x):
        return (x.mean if kind == "GlobalAveragePool" else x.amax)(axes, keepdim=True)

    check_against_torch(Node(kind, example), function)
    check_against_torch(Node(kind, example), function, inputs=ties)


def test_column_major_places_are_refused():
    with pytest.raises(UnsupportedModelError, match="storage_order"):
        pool("MaxPool", (3, 8, 8), [2, 2], storage_order=1).gradient_model()
