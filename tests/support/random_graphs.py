"""Random small forward graphs of supported operators, for a fuzz test of gradients.

A graph grows node by node; each new node's values are computed at once in float64 with onnx's
own reference implementation, so that the next one is only put where it is smooth (a logarithm
needs positive values) and every shape is known.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.support import random_layers, random_movement, random_nodes
from tests.support.random_operators import OPERATORS


class Erf(OpRun):
    """In double: onnx's own rounds to float32."""

    def _run(self, x):
        return (np.vectorize(math.erf, otypes=["d"])(x),)


#: Imported for what they register.
GROUPS = (random_layers, random_movement, random_nodes)

BATCH = 3
CLASSES = 3
_SHAPES = ((6,), (4, 5), (4, 6, 6), (2, 5, 4))


class Sketch:
    """A graph under construction; ``values`` holds every tensor at a batch of three."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes = []
        self.values = {}
        self.trainable = {}
        self.constants = {}
        self.unused = []
        shape = _SHAPES[self.rng.integers(len(_SHAPES))]
        self.values["input"] = self.rng.standard_normal((BATCH, *shape))
        self.add("Add", "input", self.weight(shape))

    def weight(self, shape, low=-1.0, high=1.0):
        """Return the name of a new trainable tensor, uniform between the bounds."""
        name = f"weight{len(self.trainable)}"
        self.trainable[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        self.values[name] = self.trainable[name].astype(np.float64)
        return name

    def statistics(self, channels):
        names = [f"mean{len(self.constants)}", f"variance{len(self.constants)}"]
        for name, value in zip(names, (0.1, 0.9), strict=True):
            self.constants[name] = np.full(channels, value, np.float32)
            self.values[name] = self.constants[name].astype(np.float64)
        return names

    def constant(self, value, dtype=np.int64):
        name = f"constant{len(self.constants)}"
        self.constants[name] = self.values[name] = np.array(value, dtype)
        if dtype == np.float32:
            self.values[name] = self.values[name].astype(np.float64)
        return name

    def pick(self, *ranks, where=lambda value: True):
        """Return a tensor that follows the batch, the newest ones preferred; None if none fits."""
        made = [name for node in self.nodes for name in node.output]
        fitting = [
            name
            for name in made
            if self.values[name].dtype == np.float64
            and (not ranks or self.values[name].ndim in ranks)
            and where(self.values[name])
        ]
        if not fitting:
            return None
        newest = self.rng.random() < 0.7
        return fitting[-1] if newest else fitting[self.rng.integers(len(fitting))]

    def add(self, operator, *inputs, outputs=1, **attributes):
        """Add a node and compute it; return its first output, None if the values get wild."""
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        node = helper.make_node(operator, inputs, names, name=f"n{len(self.nodes)}", **attributes)
        found = _compute(node, {name: self.values[name] for name in inputs if name})
        if any(not v.size or not np.isfinite(v).all() or np.abs(v).max() > 30 for v in found):
            return None
        self.values.update(zip(names, found, strict=True))
        self.nodes.append(node)
        self.unused = [name for name in self.unused if name not in inputs] + names
        return names[0]

    def finish(self):
        """Return the forward graph: everything unused goes, flattened, into a last layer."""
        for name in list(self.unused):
            if not np.issubdtype(self.values[name].dtype, np.floating):
                self.unused.remove(name)
        flat = [self.add("Flatten", name, axis=1) for name in list(self.unused)]
        joined = flat[0] if len(flat) == 1 else self.add("Concat", *flat, axis=1)
        width = self.values[joined].shape[1]
        bound = 1 / np.sqrt(width)
        self.add(
            "Gemm", joined, self.weight((width, CLASSES), -bound, bound), self.weight(CLASSES)
        )
        self.nodes[-1].output[0] = "logits"
        return self._model()

    def _model(self):
        tensors = {**self.trainable, **self.constants}
        used = {name for node in self.nodes for name in node.input}
        shape = ["batch", *self.values["input"].shape[1:]]
        graph = helper.make_graph(
            self.nodes,
            "forward",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
            [numpy_helper.from_array(v, name) for name, v in tensors.items() if name in used],
        )
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def random_forward(operators, seed):
    """Return a forward graph with as many of the operators, in this order, as find a place."""
    sketch = Sketch(seed)
    for operator in operators:
        OPERATORS[operator](sketch)
    return sketch.finish()


def reference_loss(forward, labels):
    """Return a function from parameters and input (float64) to the mean cross-entropy."""
    model = onnx.ModelProto()
    model.CopyFrom(forward)
    del model.graph.initializer[:]
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(helper.make_attribute("training_mode", 1))
            node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_variance"])
    tensors = {t.name: numpy_helper.to_array(t) for t in forward.graph.initializer}
    kinds = {name: helper.np_dtype_to_tensor_dtype(_wide(v).dtype) for name, v in tensors.items()}
    model.graph.input.extend(
        helper.make_tensor_value_info(name, kinds[name], list(v.shape))
        for name, v in tensors.items()
    )
    evaluator = ReferenceEvaluator(model, new_ops=[Erf])
    fixed = {name: _wide(value) for name, value in tensors.items()}

    def loss(parameters, x):
        (logits,) = evaluator.run(["logits"], {**fixed, **parameters, "input": x})
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -log_softmax[np.arange(len(labels)), labels].mean()

    return loss


def _wide(value):
    return value.astype(np.float64) if value.dtype == np.float32 else value


def _compute(node, feed):
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
        )
        for name, value in feed.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([_in_training(node)], "one", infos, outputs)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return [
        np.asarray(value) for value in ReferenceEvaluator(model, new_ops=[Erf]).run(None, feed)
    ]


def _in_training(node):
    if node.op_type != "BatchNormalization":
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.attribute.append(helper.make_attribute("training_mode", 1))
    copy.output.extend(["new_mean", "new_variance"])
    return copy
