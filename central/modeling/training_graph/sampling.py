"""Random data for a training graph's inputs, to try the graph with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from central.modeling.training_graph import names

Feed = dict[str, NDArray[Any]]


def sample(
    model: onnx.ModelProto, rng: np.random.Generator, batch: int, whole_below: Mapping[str, int]
) -> Feed:
    """Return data for every input but ``parameters``.

    Args:
        model: Its first dimension that is not a number is the batch.
        rng: Where the data come from.
        batch: Number of examples; the last one is masked.
        whole_below: Upper bound of whole numbers, by input; 2 for others.

    Returns:
        Normal values for floats, uniform ones below the bound for whole numbers.
    """
    feed = {
        info.name: _values(info, rng, batch, whole_below.get(info.name, 2))
        for info in model.graph.input
        if info.name != names.PARAMETERS
    }
    if names.MASK in feed:
        feed[names.MASK] = np.ones(batch, np.float32)
        feed[names.MASK][-1] = 0
    return feed


def _values(
    info: onnx.ValueInfoProto, rng: np.random.Generator, batch: int, bound: int
) -> NDArray[Any]:
    tensor = info.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else batch for d in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, bound, shape).astype(dtype)
