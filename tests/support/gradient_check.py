"""Gradients of small ONNX graphs, against finite differences in float64 and against torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from central.modeling.training_graph.backward import backpropagate, emit_forward
from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.preparation import prepare

Array = NDArray[Any]

FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
BATCHES = (5, 1)
STEP = 1e-5


class Erf(OpRun):
    """The evaluator's own computes in float32, whatever it gets."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)


def evaluator_of(model: onnx.ModelProto) -> ReferenceEvaluator:
    return ReferenceEvaluator(model, new_ops=[Erf])


@dataclass(frozen=True)
class Case:
    """One small graph from ``input`` ``(batch, *shape)`` to ``y``.

    ``body`` is ONNX text; float ``parameters`` and the input are differentiated, ``constants``
    are not. ``torch`` gets the input, and the parameters by name, all float64.
    """

    name: str
    body: str
    shape: tuple[int, ...] = (3,)
    parameters: Mapping[str, Array] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    torch: Callable[..., Any] | None = None
    low: float = -2.0
    high: float = 2.0

    def model(self) -> onnx.ModelProto:
        dims = ", ".join(["batch", *map(str, self.shape)])
        text = (
            f'<ir_version: 8, opset_import: ["" : 18]>\n'
            f"forward (float[{dims}] input) => (float y) {{ {self.body} }}"
        )
        model = parser.parse_model(text)
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in (*self.parameters.items(), *self.constants.items())
        )
        return model

    def input(self, batch: int, seed: int = 7) -> Array:
        rng = np.random.default_rng(seed)
        return rng.uniform(self.low, self.high, (batch, *self.shape)).astype(np.float32)


def values(*shape: int, low: float = -1.5, high: float = 1.5, seed: int = 3) -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def gradient_graph(prepared: onnx.ModelProto, targets: Sequence[str]) -> onnx.ModelProto:
    """Return the graph whose outputs are ``y`` and the gradients of ``sum(seed * y)``."""
    graph = prepared.graph
    builder = GraphBuilder(graph)
    given = {info.name for info in graph.input}
    for name in targets:
        if name not in given:
            builder.release(name)
    dtype = builder.dtype("y")
    inputs = [
        *graph.input,
        helper.make_tensor_value_info("seed", dtype, builder.shape("y")),
        *(
            helper.make_tensor_value_info(name, dtype, builder.shape(name))
            for name in targets
            if name not in given
        ),
    ]
    nodes = emit_forward(builder, graph, targets)
    found = backpropagate(builder, nodes, {"y": "seed"}, targets)
    outputs = [helper.make_tensor_value_info("y", dtype, builder.shape("y"))]
    for name in targets:
        output = builder.emit("Identity", found[name], output=f"gradient of {name}")
        outputs.append(helper.make_tensor_value_info(output, dtype, builder.shape(name)))
    return builder.finish("gradients", inputs, outputs)


def as_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same graph in float64; scales of Resize stay float32, as the standard wants."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    graph = double.graph
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3]}
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT and tensor.name not in kept:
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for info in (*graph.input, *graph.output, *graph.value_info):
        if info.type.tensor_type.elem_type == FLOAT:
            info.type.tensor_type.elem_type = DOUBLE
    for node in graph.node:
        _widen(node)
    return double


def _widen(node: onnx.NodeProto) -> None:
    for item in node.attribute:
        if node.op_type == "Cast" and item.name == "to" and item.i == FLOAT:
            item.i = DOUBLE
        if item.HasField("t") and item.t.data_type == FLOAT:
            array = numpy_helper.to_array(item.t).astype(np.float64)
            item.t.CopyFrom(numpy_helper.from_array(array))


def check(case: Case, batches: Sequence[int] = BATCHES) -> None:
    """Compare in float64 with differences and torch, then float32 with float64."""
    targets = ["input", *case.parameters]
    prepared = prepare(case.model(), list(case.parameters))
    single = gradient_graph(prepared, targets)
    onnx.checker.check_model(single, full_check=True)
    wide = as_double(prepared)
    double = gradient_graph(wide, targets)
    session = onnxruntime.InferenceSession(
        single.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    evaluator, forward = evaluator_of(double), _Forward(wide, list(case.parameters))
    for batch in batches:
        feeds = {"input": case.input(batch), **case.parameters}
        feeds64 = {name: np.asarray(value, np.float64) for name, value in feeds.items()}
        y = forward(feeds64)
        seed = np.random.default_rng(1).uniform(0.5, 1.5, y.shape)
        exact = dict(zip(targets, evaluator.run(None, {**feeds64, "seed": seed})[1:], strict=True))
        measured = _differences(forward, feeds64, seed)
        for name in targets:
            _compare(f"{case.name}: {name} against differences", exact[name], measured[name], 1e-7)
        _compare_with_torch(case, feeds64, seed, y, exact)
        got = session.run(None, {**feeds, "seed": np.asarray(seed, np.float32)})[1:]
        for name, gradient in zip(targets, got, strict=True):
            _compare(f"{case.name}: {name} in float32", gradient, exact[name], 2e-5)


def gradients_in_float32(case: Case, batch: Array) -> dict[str, Array]:
    """Return the gradients of the sum of ``y``, as onnxruntime computes them."""
    targets = ["input", *case.parameters]
    prepared = prepare(case.model(), list(case.parameters))
    model = gradient_graph(prepared, targets)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feeds = {"input": batch, **case.parameters}
    shape = [len(batch) if d == "batch" else d for d in GraphBuilder(prepared.graph).shape("y")]
    results = session.run(None, {**feeds, "seed": np.ones(shape, np.float32)})
    return dict(zip(targets, results[1:], strict=True))


class _Forward:
    def __init__(self, model: onnx.ModelProto, parameters: Sequence[str]) -> None:
        free = onnx.ModelProto()
        free.CopyFrom(model)
        tensors = {tensor.name: tensor for tensor in free.graph.initializer}
        free.graph.ClearField("initializer")
        free.graph.initializer.extend(t for n, t in tensors.items() if n not in parameters)
        free.graph.input.extend(
            helper.make_tensor_value_info(name, DOUBLE, tensors[name].dims) for name in parameters
        )
        self._evaluator = evaluator_of(free)

    def __call__(self, feeds: Mapping[str, Array]) -> Array:
        (y,) = self._evaluator.run(["y"], dict(feeds))
        return np.asarray(y)


def _differences(
    forward: Callable[[Mapping[str, Array]], Array], feeds: Mapping[str, Array], seed: Array
) -> dict[str, Array]:
    found = {}
    for name, array in feeds.items():
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = array.copy()
                moved[index] += step
                ends.append(float(np.sum(seed * forward({**feeds, name: moved}))))
            gradient[index] = (ends[0] - ends[1]) / (2 * STEP)
        found[name] = gradient
    return found


def _compare_with_torch(
    case: Case,
    feeds: Mapping[str, Array],
    seed: Array,
    y: Array,
    exact: Mapping[str, Array],
) -> None:
    if case.torch is None:
        return
    leaves = {
        name: torch.from_numpy(np.array(array)).requires_grad_() for name, array in feeds.items()
    }
    others = {name: leaf for name, leaf in leaves.items() if name != "input"}
    result = case.torch(leaves["input"], **others)
    _compare(f"{case.name}: torch's forward", result.detach().numpy(), y, 1e-6)
    result.backward(torch.from_numpy(seed))
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        _compare(f"{case.name}: {name} against torch", exact[name], leaf.grad.numpy(), 1e-6)


def _compare(what: str, got: Array, expected: Array, tolerance: float) -> None:
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, {expected.shape} expected"
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    worst = float(np.abs(got - expected).max(initial=0))
    assert worst <= tolerance * scale, f"{what}: off by {worst:.3g} of {scale:.3g}"
