"""One node, its gradients with respect to its inputs, and two judges of them."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from central.modeling.training_graph.backward import backpropagate, emit_forward
from central.modeling.training_graph.builder import BATCH, GraphBuilder
from central.modeling.training_graph.preparation import prepare

#: Relative norm of the difference to torch, float32.
TORCH_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Node:
    """A node of one data input, parameters and attributes."""

    operator: str
    example: tuple[int, ...]
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)
    fixed: dict[str, np.ndarray] = field(default_factory=dict)

    def model(self, dtype) -> onnx.ModelProto:
        """The forward graph, as an exporter writes it."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        constants = {**self.parameters, **self.fixed}
        node = helper.make_node(
            self.operator, ["input", *constants], ["logits"], name="it", **self.attributes
        )
        graph = helper.make_graph(
            [node],
            "forward",
            [helper.make_tensor_value_info("input", element, [BATCH, *self.example])],
            [helper.make_empty_tensor_value_info("logits")],
            [numpy_helper.from_array(v.astype(dtype), k) for k, v in constants.items()],
        )
        opsets = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def gradient_model(self, dtype=np.float32, masked=False) -> onnx.ModelProto:
        """A graph from input, parameters and the gradient of the output to all gradients."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        if dtype is np.float32:
            forward = prepare(self.model(dtype), list(self.parameters))
        else:  # onnxruntime has few kernels for it
            forward = shape_inference.infer_shapes(self.model(dtype), data_prop=True)
        builder = GraphBuilder(forward.graph)
        targets = ["input", *self.parameters]
        for name in self.parameters:
            builder.release(name)
        builder.mask = "mask" if masked else None
        nodes = emit_forward(builder, forward.graph, targets)
        gradients = backpropagate(builder, nodes, {"logits": "outer"}, targets)
        outputs = {
            f"d.{name}": builder.emit("Identity", gradients[name], output=f"d.{name}")
            for name in targets
        }
        running = {
            f"new.{name}": builder.emit("Identity", new, output=f"new.{name}")
            for name, new in builder.running.items()
        }
        inputs = {"input": [BATCH, *self.example], "outer": [None] * builder.rank("logits")}
        inputs |= {name: list(value.shape) for name, value in self.parameters.items()}
        if masked:
            inputs["mask"] = [BATCH]
        return builder.finish(
            "gradients",
            [
                helper.make_tensor_value_info(name, element, shape)
                for name, shape in inputs.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in ("logits", *outputs, *running)],
        )


class Float32:
    """Runs one gradient graph on onnxruntime, at any batch."""

    def __init__(self, node: Node, masked=False) -> None:
        model = node.gradient_model(masked=masked)
        self.model = model
        self.node = node
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, x, outer, mask=None) -> dict[str, np.ndarray]:
        feeds = {"input": x, "outer": outer, **self.node.parameters}
        if mask is not None:
            feeds["mask"] = mask
        taken = {item.name for item in self.session.get_inputs()}
        feeds = {k: v.astype(np.float32) for k, v in feeds.items() if k in taken}
        return dict(zip(self.names, self.session.run(None, feeds), strict=True))


def relative(found, expected) -> float:
    """Norm of the difference over the norm."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def check_against_torch(node: Node, function, batches=(1, 5), seed=0, inputs=None) -> None:
    """Compare with torch autograd in float64, at several batches of one graph.

    Args:
        node: What is differentiated.
        function: ``(torch tensor input, *torch parameters)`` to the output.
        batches: Sizes of the batches.
        seed: Of the values.
        inputs: ``(random generator, shape)`` to the values of the input; normal unless given.
    """
    rig = Float32(node)
    rng = np.random.default_rng(seed)
    draw = inputs or (lambda rng, shape: rng.standard_normal(shape))
    for batch in batches:
        x = draw(rng, (batch, *node.example)).astype(np.float32)
        leaves = [
            torch.tensor(v.astype(np.float64), requires_grad=True)
            for v in (x, *node.parameters.values())
        ]
        y = function(*leaves)
        outer = rng.standard_normal(tuple(y.shape)).astype(np.float32)
        y.backward(torch.tensor(outer.astype(np.float64)))
        found = rig.run(x, outer)
        assert relative(found["logits"], y.detach().numpy()) < TORCH_TOLERANCE
        for name, leaf in zip(("input", *node.parameters), leaves, strict=True):
            gradient = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
            assert relative(found[f"d.{name}"], gradient) < TORCH_TOLERANCE, (name, batch)


def check_against_differences(node: Node, batch=2, seed=1, inputs=None, masked=None) -> None:
    """Compare with central differences in float64 along random directions."""
    evaluator = ReferenceEvaluator(node.gradient_model(np.float64, masked=masked is not None))
    rng = np.random.default_rng(seed)
    draw = inputs or (lambda rng, shape: rng.standard_normal(shape))
    feeds = {"input": draw(rng, (batch, *node.example))}
    feeds |= {name: value.astype(np.float64) for name, value in node.parameters.items()}
    if masked is not None:
        feeds["mask"] = np.array(masked, np.float64)
    names = [output.name for output in evaluator.proto_.graph.output]

    def run(changed, outer):
        taken = {item.name for item in evaluator.proto_.graph.input}
        given = {**changed, "outer": outer}
        return dict(
            zip(
                names,
                evaluator.run(None, {k: v for k, v in given.items() if k in taken}),
                strict=True,
            )
        )

    shape = _output_shape(node, feeds["input"])
    outer = rng.standard_normal(shape)
    if masked is not None:
        outer *= feeds["mask"].reshape(-1, *[1] * (len(shape) - 1))
    found = run(feeds, outer)
    for name in ("input", *node.parameters):
        direction = rng.standard_normal(feeds[name].shape)
        step = 1e-6 * direction
        up, down = (
            (run({**feeds, name: feeds[name] + sign * step}, outer)["logits"] * outer).sum()
            for sign in (1, -1)
        )
        expected = (up - down) / 2e-6
        along = (found[f"d.{name}"] * direction).sum()
        assert abs(along - expected) < 1e-6 * max(abs(expected), np.abs(direction).mean(), 1), name


def plain_output(node: Node, x) -> np.ndarray:
    """What the node itself computes, on onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    plain = onnxruntime.InferenceSession(
        node.model(np.float32).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return plain.run(None, {"input": x.astype(np.float32)})[0]


def _output_shape(node: Node, x) -> tuple[int, ...]:
    model = node.model(np.float64)
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
    dims = inferred.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else len(x) for d in dims)


def check_forward_is_kept(node: Node, batch=3) -> None:
    """The gradient graph's forward half computes what the node itself computes."""
    x = np.random.default_rng(5).standard_normal((batch, *node.example)).astype(np.float32)
    expected = plain_output(node, x)
    found = Float32(node).run(x, np.zeros_like(expected))["logits"]
    assert relative(found, expected) < TORCH_TOLERANCE
