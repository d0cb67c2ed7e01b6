"""Gradients of activation functions."""

import onnx

from central.modeling.training_graph.nodes import attribute
from central.modeling.training_graph.rules.unary import unary
from central.modeling.training_graph.terms import Term

#: The standard's defaults of Selu.
_SELU_ALPHA = 1.6732631921768188
_SELU_GAMMA = 1.0507010221481323
#: Where HardSwish becomes zero, and the identity.
_KNEE = 3


@unary("Relu")
def _relu(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return g.only(y > 0)


@unary("LeakyRelu")
def _leaky_relu(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    alpha = attribute(node, "alpha", 0.01)
    return g.only(x > 0) * (1 - alpha) + g * alpha


@unary("ThresholdedRelu")
def _thresholded_relu(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    return g.where(x > attribute(node, "alpha", 1.0))


@unary("Elu")
def _elu(g: Term, x: Term, y: Term, node: onnx.NodeProto) -> Term:
    return g.where(x > 0, g * (y + attribute(node, "alpha", 1.0)))


@unary("Celu")
def _celu(g: Term, x: Term, y: Term, node: onnx.NodeProto) -> Term:
    return g.where(x > 0, g * (y / attribute(node, "alpha", 1.0) + 1))


@unary("Selu")
def _selu(g: Term, x: Term, y: Term, node: onnx.NodeProto) -> Term:
    gamma = attribute(node, "gamma", _SELU_GAMMA)
    alpha = attribute(node, "alpha", _SELU_ALPHA)
    return (g * gamma).where(x > 0, g * (y + gamma * alpha))


@unary("Sigmoid")
def _sigmoid(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return g * (y * (1 - y))


@unary("HardSigmoid")
def _hard_sigmoid(g: Term, _x: Term, y: Term, node: onnx.NodeProto) -> Term:
    return (g * attribute(node, "alpha", 0.2)).only((y > 0) & (y < 1))


@unary("HardSwish")
def _hard_swish(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g.where(x > _KNEE, (g * (x / _KNEE + 0.5)).where(x > -_KNEE))


@unary("Tanh")
def _tanh(g: Term, _x: Term, y: Term, _node: onnx.NodeProto) -> Term:
    return g * (1 - y * y)


@unary("Softplus")
def _softplus(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    return g * x.apply("Sigmoid")


@unary("Softsign")
def _softsign(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    root = x.apply("Abs") + 1
    return g / (root * root)


@unary("Mish")
def _mish(g: Term, x: Term, _y: Term, _node: onnx.NodeProto) -> Term:
    tanh = x.apply("Softplus").apply("Tanh")
    return g * (tanh + x * x.apply("Sigmoid") * (1 - tanh * tanh))


@unary("Shrink")
def _shrink(g: Term, x: Term, _y: Term, node: onnx.NodeProto) -> Term:
    limit = attribute(node, "lambd", 0.5)
    return g.where(x > limit, g.where(x < -limit))
