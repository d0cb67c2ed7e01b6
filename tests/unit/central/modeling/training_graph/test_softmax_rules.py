"""Gradients of Softmax and LogSoftmax agree with torch and with differences."""

import pytest
import torch
from single_node_gradients import Node, check_against_differences, check_against_torch


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_gradients_of_a_softmax_agree_with_torch(operator, axis):
    function = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}[operator]
    node = Node(operator, (3, 4, 5), {}, {"axis": axis})
    check_against_torch(node, lambda x: function(x, axis))
    check_against_differences(node)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_large_logits_keep_their_gradient(operator):
    function = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}[operator]
    node = Node(operator, (6,), {}, {})
    check_against_torch(
        node,
        lambda x: function(x, -1),
        inputs=lambda rng, shape: 1000 + rng.standard_normal(shape),
    )
