"""Writes one golden model: the ONNX file, and what the framework itself computed with it.

Shared by ``make_keras.py`` and ``make_jax.py``, which run outside this project's environment:
only numpy and onnx are imported. A record (``NAME.npz``) holds, for three steps of SGD:

- ``x`` (3, batch, ...), ``y`` int64 (3, batch), ``learning_rate``, ``loss`` (3,);
- ``gradient/NAME``: the first step's gradient, ``after/NAME``: the value after the third step,
  where NAME and shape are those of the initializer in the ONNX file.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FOLDER = Path(__file__).parent
STEPS = 3
LEARNING_RATE = 0.1

Array = np.ndarray
Conversion = Callable[[Array], Array]


def batches(seed: int, batch: int, shape: tuple[int, ...], classes: int) -> tuple[Array, Array]:
    """Return the inputs (multiples of 1/8, which files hold in little) and labels of all steps."""
    rng = np.random.default_rng(seed)
    x = np.rint(8 * rng.standard_normal((STEPS, batch, *shape))) / 8
    return x.astype(np.float32), rng.integers(0, classes, (STEPS, batch))


def perturbed(shape: tuple[int, ...], rng: np.random.Generator, scale: float) -> Array:
    """Return values that no exporter can fold away and that occur once."""
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def rename_ends(model: onnx.ModelProto) -> None:
    """Name the graph's input ``input`` and its output ``logits``."""
    graph = model.graph
    (given,), (made,) = graph.input, graph.output
    new = {given.name: "input", made.name: "logits"}
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    given.name, made.name = "input", "logits"


def conversions(
    model: onnx.ModelProto, variables: dict[str, Array]
) -> dict[str, tuple[str, Conversion]]:
    """Return, for each initializer that is a variable, which one and how it is laid out.

    Raises:
        ValueError: A variable is not in the file as one tensor.
    """
    found: dict[str, tuple[str, Conversion]] = {}
    left = dict(variables)
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        for name, variable in left.items():
            conversion = _conversion(variable, values)
            if conversion is not None:
                found[initializer.name] = (name, conversion)
                del left[name]
                break
    if left:
        message = f"not in the file as one tensor: {', '.join(left)}"
        raise ValueError(message)
    return found


def _conversion(variable: Array, values: Array) -> Conversion | None:
    if values.dtype != np.float32 or variable.size != values.size:
        return None
    for order in permutations(range(variable.ndim)):
        if np.array_equal(variable.transpose(order).reshape(values.shape), values):
            return lambda array, order=order: array.transpose(order).reshape(values.shape)
    return None


@dataclass(frozen=True)
class Training:
    """What the framework computed, by the names of its own variables.

    Attributes:
        first: The values before the first step.
        gradients: Those of the first step.
        after: The values after the last step.
        arrays: Inputs, labels and losses of all steps.
    """

    first: dict[str, Array]
    gradients: dict[str, Array]
    after: dict[str, Array]
    arrays: dict[str, Array]


def write(name: str, model: onnx.ModelProto, training: Training) -> None:
    """Write ``NAME.onnx`` and ``NAME.npz``; print what is in them."""
    rename_ends(model)
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    found = conversions(model, training.first)
    record = {**training.arrays, "learning_rate": np.float32(LEARNING_RATE)}
    for initializer, (variable, convert) in found.items():
        record[f"gradient/{initializer}"] = convert(training.gradients[variable])
        record[f"after/{initializer}"] = convert(training.after[variable])
    onnx.save(model, FOLDER / f"{name}.onnx")
    np.savez_compressed(FOLDER / f"{name}.npz", **record)
    operators = sorted({node.op_type for node in model.graph.node})
    opset = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    others = [one.name for one in model.graph.initializer if one.name not in found]
    sizes = [(FOLDER / f"{name}.{kind}").stat().st_size for kind in ("onnx", "npz")]
    sys.stdout.write(f"{name}: opset {opset}, {sizes} bytes, {' '.join(operators)}\n")
    sys.stdout.write(f"  variables {found.keys()}\n  constants {others}\n")
