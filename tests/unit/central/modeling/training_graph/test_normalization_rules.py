"""Gradients of normalizations, and running statistics, agree with torch and with differences."""

import numpy as np
import pytest
import torch
from onnx import shape_inference
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

from central.modeling.training_graph.backward import emit_forward
from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.errors import UnsupportedModelError

FLOAT = 1

EXAMPLES = {
    "vector": (4,),
    "sequence": (4, 7),
    "image": (4, 5, 6),
    "large image": (3, 24, 24),
    "volume": (3, 3, 4, 5),
}


def _around_one(*shape):
    return np.random.default_rng(7).uniform(0.5, 1.5, shape).astype(np.float32)


def batch_norm(example, **attributes):
    channels = example[0]
    rng = np.random.default_rng(9)
    return Node(
        "BatchNormalization",
        example,
        {"scale": _around_one(channels), "bias": rng.standard_normal(channels).astype(np.float32)},
        attributes,
        {
            "mean": rng.standard_normal(channels).astype(np.float32),
            "variance": _around_one(channels),
        },
    )


def torch_batch_norm(epsilon=1e-5):
    return lambda x, scale, bias: functional.batch_norm(
        x, None, None, scale, bias, training=True, eps=epsilon
    )


def shifted(rng, shape):
    """A mean far from zero, which a sum of squares would not survive."""
    return 30 + rng.standard_normal(shape)


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradients_of_batch_normalization_agree_with_torch(name):
    node = batch_norm(EXAMPLES[name])
    check_against_torch(node, torch_batch_norm(), batches=(5, 9))


def test_batch_normalization_is_exact_far_from_zero():
    node = batch_norm((4, 5, 6))
    rig, rng = Float32(node), np.random.default_rng(3)
    x = shifted(rng, (5, 4, 5, 6)).astype(np.float32)
    outer = rng.standard_normal(x.shape)
    leaf = torch.tensor(x.astype(np.float64), requires_grad=True)
    scale, bias = (torch.tensor(v.astype(np.float64)) for v in node.parameters.values())
    torch_batch_norm()(leaf, scale, bias).backward(torch.tensor(outer))
    assert relative(rig.run(x, outer)["d.input"], leaf.grad.numpy()) < TORCH_TOLERANCE


def test_batch_normalization_of_one_image_agrees_with_torch():
    check_against_torch(batch_norm((4, 5, 6)), torch_batch_norm(), batches=(1,))


@pytest.mark.parametrize("name", ["vector", "image"])
def test_gradients_of_batch_normalization_agree_with_differences(name):
    check_against_differences(batch_norm(EXAMPLES[name], epsilon=1e-3), batch=4)
    check_against_differences(batch_norm(EXAMPLES[name]), batch=4, masked=[1, 0, 1, 1])


@pytest.mark.parametrize("name", EXAMPLES)
def test_running_statistics_follow_torch(name):
    node = batch_norm(EXAMPLES[name], momentum=0.7)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, *node.example)).astype(np.float32)
    mean, variance = (torch.tensor(value.copy()) for value in node.fixed.values())
    torch.nn.functional.batch_norm(torch.tensor(x), mean, variance, training=True, momentum=0.3)
    found = Float32(node).run(x, np.zeros_like(x))
    assert relative(found["new.mean"], mean.numpy()) < TORCH_TOLERANCE
    assert relative(found["new.variance"], variance.numpy()) < TORCH_TOLERANCE


@pytest.mark.parametrize("name", EXAMPLES)
def test_padded_examples_count_nowhere(name):
    node = batch_norm(EXAMPLES[name])
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, *node.example)).astype(np.float32)
    outer = rng.standard_normal(x.shape).astype(np.float32)
    mask = np.array([1, 1, 0, 1, 0, 0], np.float32)
    outer[mask == 0] = 0
    valid = Float32(node).run(x[mask == 1], outer[mask == 1])
    found = Float32(node, masked=True).run(x, outer, mask)
    for key in valid.keys() - {"logits", "d.input"}:
        assert relative(found[key], valid[key]) < TORCH_TOLERANCE, key
    for key in ("logits", "d.input"):
        assert relative(found[key][mask == 1], valid[key]) < TORCH_TOLERANCE, key
    assert not found["d.input"][mask == 0].any()


def test_a_full_mask_changes_nothing():
    node = batch_norm((4, 5, 6))
    rng = np.random.default_rng(1)
    x, outer = rng.standard_normal((2, 3, 4, 5, 6)).astype(np.float32)
    plain = Float32(node).run(x, outer)
    masked = Float32(node, masked=True).run(x, outer, np.ones(3))
    assert all(relative(masked[key], plain[key]) < 1e-6 for key in plain)


@pytest.mark.parametrize(
    ("example", "axis"), [((6,), -1), ((3, 6), -1), ((3, 4, 6), 2), ((3, 4, 6), -1)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_of_layer_normalization_agree_with_torch(example, axis, bias):
    parameters = {"scale": _around_one(6)}
    if bias:
        parameters["bias"] = _around_one(6)
    node = Node(
        "LayerNormalization", example, parameters, {"axis": axis if axis < 0 else axis + 1}
    )

    def function(x, scale, bias=None):
        return functional.layer_norm(x, (6,), scale, bias)

    check_against_torch(node, function)


def test_layer_normalization_over_several_axes_agrees_with_torch():
    shape = (4, 6)
    node = Node(
        "LayerNormalization",
        (3, *shape),
        {"scale": _around_one(*shape), "bias": _around_one(*shape)},
        {"axis": 2},
    )
    check_against_torch(node, lambda x, scale, bias: functional.layer_norm(x, shape, scale, bias))
    check_against_differences(node)


@pytest.mark.parametrize("example", [(4, 7), (4, 5, 6), (3, 24, 24), (3, 3, 4, 5)])
def test_gradients_of_instance_normalization_agree_with_torch(example):
    node = Node(
        "InstanceNormalization",
        example,
        {"scale": _around_one(example[0]), "bias": _around_one(example[0])},
    )
    check_forward_is_kept(node)
    check_against_torch(
        node, lambda x, scale, bias: functional.instance_norm(x, weight=scale, bias=bias)
    )


def test_gradients_of_instance_normalization_agree_with_differences():
    node = Node(
        "InstanceNormalization",
        (3, 4, 5),
        {"scale": _around_one(3), "bias": _around_one(3)},
        {"epsilon": 1e-3},
    )
    check_against_differences(node)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("axis", [-1, 1])
def test_gradients_of_norms_agree_with_torch(order, axis):
    node = Node("LpNormalization", (4, 5), {}, {"axis": axis, "p": order})
    check_against_torch(node, lambda x: functional.normalize(x, p=order, dim=axis))


def test_the_gradient_at_a_norm_of_zero_is_finite():
    found = Float32(Node("LpNormalization", (5,))).run(np.zeros((2, 5)), np.ones((2, 5)))
    assert np.isfinite(found["d.input"]).all()


def test_gradients_of_group_normalization_agree_with_torch():
    parameters = {"scale": _around_one(3), "bias": _around_one(3)}
    node = Node("GroupNormalization", (6, 4, 5), parameters, {"num_groups": 3})

    def function(x, scale, bias):
        return functional.group_norm(x, 3, *(v.repeat_interleave(2) for v in (scale, bias)))

    check_forward_is_kept(node)
    check_against_torch(node, function)


def test_a_mask_over_other_rows_than_the_batch_is_refused():
    model = shape_inference.infer_shapes(batch_norm((4, 5, 6)).model(np.float32))
    builder = GraphBuilder(model.graph)
    builder.describe("input", ("3*batch", 4, 5, 6), FLOAT)
    builder.mask = "mask"
    with pytest.raises(UnsupportedModelError, match=r"3\*batch rows"):
        emit_forward(builder, model.graph, ["input"])
