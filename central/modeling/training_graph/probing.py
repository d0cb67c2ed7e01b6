"""Shapes and types of every tensor, read off by running the forward graph.

Far more reliable than shape inference, which gives up at the first computed shape. A dimension
that differs between runs follows the batch: ``batch``, ``4*batch``, ``2*batch+1``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from central.modeling.training_graph.builder import BATCH, Dimension
from central.modeling.training_graph.errors import UnsupportedModelError

Array = NDArray[Any]

#: Two tell what follows the batch, and how; the third is the shortest last batch of an epoch.
BATCHES = (2, 3, 1)

#: Another one, for what is equal at those by chance.
CHECKED_BATCH = 7
TOLERANCE = 1e-4

_MOST_CHARACTERS = 600
_RANDOM = frozenset(
    {
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    }
)
#: Position of Dropout's ratio; behind it comes whether it drops at all.
_RATIO = 1
_EXPORT_ADVICE = "export it with the first axis of its inputs dynamic and all other axes fixed"


def run_forward(model: onnx.ModelProto) -> tuple[dict[str, Array], ...]:
    """Run the graph at each size of ``BATCHES``; return all its tensors, by name.

    Args:
        model: Prepared as far as it is; its inputs are filled with ones (floats) and zeros.

    Raises:
        UnsupportedModelError: onnxruntime cannot load or run the graph at such a batch.
    """
    names = [name for node in model.graph.node for name in node.output if name]
    examples = [_example(model.graph, batch, _fill) for batch in BATCHES]
    runs = _run(model, names, examples)
    return tuple(runs)


def check_agreement(forward: onnx.ModelProto, prepared: onnx.ModelProto) -> None:
    """Make sure that a prepared graph still computes what the forward graph does.

    Args:
        forward: Its batch axis is free.
        prepared: With the same inputs and outputs.

    Raises:
        UnsupportedModelError: An output differs, on pseudo-random inputs of ``CHECKED_BATCH``.
    """
    if any(_is_random(node) for node in forward.graph.node):
        return
    names = [info.name for info in forward.graph.output]
    rng = np.random.default_rng(0)
    examples = [_example(forward.graph, CHECKED_BATCH, lambda *given: _draw(rng, *given))]
    (expected,) = _run(forward, names, examples)
    (got,) = _run(prepared, names, examples)
    for name in names:
        before, after = expected[name], got[name]
        if not np.allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            reason = f"its output {name!r} changed when the graph was brought to opset 18"
            raise UnsupportedModelError(reason, "export it at opset 18, without functions")


def _run(
    model: onnx.ModelProto, names: Sequence[str], examples: Sequence[Mapping[str, Array]]
) -> list[dict[str, Array]]:
    """Return tensors of each run by name, without optimizations; sequences are left out."""
    import onnxruntime  # noqa: PLC0415 - takes 0.1 s, only where a graph is built

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.ClearField("output")
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        runs = [session.run(list(names), dict(example)) for example in examples]
    except Exception as error:  # onnxruntime has no common base of its errors
        reason = f"onnxruntime does not run it at batches of {BATCHES} examples: {error}"
        raise UnsupportedModelError(reason[:_MOST_CHARACTERS], _EXPORT_ADVICE) from error
    return [
        {
            name: value
            for name, value in zip(names, run, strict=True)
            if isinstance(value, np.ndarray)
        }
        for run in runs
    ]


def _is_random(node: onnx.NodeProto) -> bool:
    return node.op_type in _RANDOM or (node.op_type == "Dropout" and len(node.input) > _RATIO + 1)


def _example(
    graph: onnx.GraphProto, batch: int, fill: Callable[[list[int], np.dtype[Any]], Array]
) -> dict[str, Array]:
    feeds = {}
    for info in graph.input:
        tensor = info.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else batch for d in tensor.shape.dim]
        feeds[info.name] = fill(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return feeds


def _fill(shape: list[int], dtype: np.dtype[Any]) -> Array:
    return np.full(shape, 1 if np.issubdtype(dtype, np.floating) else 0, dtype)


def _draw(rng: np.random.Generator, shape: list[int], dtype: np.dtype[Any]) -> Array:
    """Return uniform values for floats; zeros and ones, which any vocabulary has, for others."""
    if np.issubdtype(dtype, np.floating):
        return rng.uniform(0, 1, shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def free_batch_axis(graph: onnx.GraphProto) -> None:
    """Name the free first axis of the inputs ``batch``; of the first input if none is free.

    Raises:
        UnsupportedModelError: An input has another free axis, or no axis at all.
    """
    if not graph.input or not graph.input[0].type.tensor_type.shape.dim:
        reason = "it has no input with a batch axis"
        raise UnsupportedModelError(reason, _EXPORT_ADVICE)
    shapes = [info.type.tensor_type.shape.dim for info in graph.input]
    if all(dim.HasField("dim_value") for dims in shapes for dim in dims[:1]):
        shapes[0][0].dim_param = BATCH
    for info, dims in zip(graph.input, shapes, strict=True):
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value"):
                continue
            if axis:
                reason = f"axis {axis} of its input {info.name!r} has no fixed size"
                raise UnsupportedModelError(reason, _EXPORT_ADVICE)
            dim.dim_param = BATCH


def note_shapes(model: onnx.ModelProto, runs: Sequence[Mapping[str, Array]]) -> None:
    """Write what the runs showed into the graph's ``value_info``, and into its outputs."""
    two, three = runs[0], runs[1]
    computed = {name for node in model.graph.node for name in node.output}
    infos = {
        name: helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [_dimension(*sizes) for sizes in zip(array.shape, three[name].shape, strict=True)],
        )
        for name, array in two.items()
        if name in computed
    }
    outputs = [infos.get(info.name, info) for info in model.graph.output]
    model.graph.ClearField("output")
    model.graph.output.extend(outputs)
    model.graph.ClearField("value_info")
    model.graph.value_info.extend(infos.values())


def _dimension(at_two: int, at_three: int) -> Dimension:
    factor = at_three - at_two
    if not factor:
        return at_two
    rest = at_two - 2 * factor
    text = BATCH if factor == 1 else f"{factor}*{BATCH}"
    return f"{text}{rest:+d}" if rest else text
