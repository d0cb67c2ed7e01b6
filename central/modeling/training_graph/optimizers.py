"""Optimizers on the flat vector of trainable values, with the semantics of torch.optim.

One vector instead of many tensors makes an optimizer a dozen nodes, whatever the model is. All
start from a state of zeros.

Sources: SGD with momentum as in Sutskever et al., "On the importance of initialization and
momentum in deep learning", ICML 2013, with the rate outside of the velocity; Kingma and Ba,
"Adam: A Method for Stochastic Optimization", ICLR 2015, https://arxiv.org/abs/1412.6980,
algorithm 1; Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019,
https://arxiv.org/abs/1711.05101, algorithm 2. FedProx: Li et al., "Federated Optimization in
Heterogeneous Networks", MLSys 2020, https://arxiv.org/abs/1812.06127.
"""

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.names import (
    CLIP_NORM,
    LEARNING_RATE,
    NEW_STATE,
    PROXIMAL_MU,
    STATE,
)
from central.modeling.training_graph.spec import StepSpec

BETAS = (0.9, 0.999)
EPSILON = 1e-8
#: Keeps the clipping factor finite, as in torch.nn.utils.clip_grad_norm_.
_CLIP_EPSILON = 1e-6


def emit_proximal(builder: GraphBuilder, gradient: str, values: str, reference: str) -> str:
    """Add the gradient of ``mu / 2 * |values - reference|^2``; return the sum."""
    difference = builder.emit("Sub", values, reference)
    return builder.emit("Add", gradient, builder.emit("Mul", PROXIMAL_MU, difference))


def emit_clipping(builder: GraphBuilder, gradient: str) -> str:
    """Scale a gradient whose norm is above ``clip_norm`` down to it; return the result."""
    squares = builder.emit("ReduceSumSquare", gradient, keepdims=0)
    norm = builder.emit("Sqrt", squares)
    padded = builder.emit("Add", norm, builder.scalar(_CLIP_EPSILON))
    factor = builder.emit("Min", builder.emit("Div", CLIP_NORM, padded), builder.scalar(1))
    return builder.emit("Mul", gradient, factor)


def emit_update(
    builder: GraphBuilder, spec: StepSpec, gradient: str, values: str, count: int
) -> str:
    """Emit the optimizer and, if it has a state, ``new_state``; return the new values.

    Args:
        builder: ``learning_rate`` and ``state`` are inputs of the graph.
        spec: Which optimizer.
        gradient: Shape ``(count,)``.
        values: The trainable parameters, shape ``(count,)``.
        count: How many there are.
    """
    if spec.weight_decay and spec.optimizer != "adamw":
        decay = builder.emit("Mul", values, builder.scalar(spec.weight_decay))
        gradient = builder.emit("Add", gradient, decay)
    if spec.optimizer == "sgd":
        direction = _velocity(builder, spec, gradient) if spec.momentum else gradient
        return builder.emit("Sub", values, builder.emit("Mul", LEARNING_RATE, direction))
    if spec.weight_decay and spec.optimizer == "adamw":
        values = _decayed(builder, values, spec.weight_decay)
    return builder.emit("Sub", values, _adam(builder, gradient, count))


def _velocity(builder: GraphBuilder, spec: StepSpec, gradient: str) -> str:
    momentum = builder.scalar(spec.momentum)
    slowed = builder.emit("Mul", STATE, momentum)
    velocity = builder.emit("Add", slowed, gradient, output=NEW_STATE)
    if not spec.nesterov:
        return velocity
    return builder.emit("Add", gradient, builder.emit("Mul", velocity, momentum))


def _decayed(builder: GraphBuilder, values: str, weight_decay: float) -> str:
    lost = builder.emit("Mul", LEARNING_RATE, builder.scalar(weight_decay))
    return builder.emit("Mul", values, builder.emit("Sub", builder.scalar(1), lost))


def _adam(builder: GraphBuilder, gradient: str, count: int) -> str:
    """Return the step ``rate * mean / (1 - b1^t) / (sqrt(square / (1 - b2^t)) + epsilon)``."""
    sizes = builder.integers(count, count, 1)
    mean, square, steps = builder.emit_many("Split", STATE, sizes, outputs=3, axis=0)
    mean = _average(builder, mean, gradient, BETAS[0])
    squared = builder.emit("Mul", gradient, gradient)
    square = _average(builder, square, squared, BETAS[1])
    steps = builder.emit("Add", steps, builder.constant([1], np.float32))
    builder.emit("Concat", mean, square, steps, axis=0, output=NEW_STATE)
    first, second = _bias_corrections(builder, steps)
    deviation = builder.emit("Div", builder.emit("Sqrt", square), builder.emit("Sqrt", second))
    scale = builder.emit("Add", deviation, builder.scalar(EPSILON))
    rate = builder.emit("Div", LEARNING_RATE, first)
    return builder.emit("Mul", rate, builder.emit("Div", mean, scale))


def _average(builder: GraphBuilder, old: str, new: str, beta: float) -> str:
    kept = builder.emit("Mul", old, builder.scalar(beta))
    return builder.emit("Add", kept, builder.emit("Mul", new, builder.scalar(1 - beta)))


def _bias_corrections(builder: GraphBuilder, steps: str) -> list[str]:
    """Return ``1 - beta^t`` of both decay rates, each of shape ``(1,)``.

    In float32 the second would be wrong by 6e-5 of its value at the first step.
    """
    exact = builder.emit("Cast", steps, to=onnx.TensorProto.DOUBLE)
    powers = builder.emit("Pow", builder.constant(BETAS, np.float64), exact)
    left = builder.emit("Sub", builder.constant(1.0, np.float64), powers)
    rounded = builder.emit("Cast", left, to=onnx.TensorProto.FLOAT)
    return builder.emit_many("Split", rounded, builder.integers(1, 1), outputs=2, axis=0)
