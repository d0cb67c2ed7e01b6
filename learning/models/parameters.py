"""The parameters of a torch module as named NumPy arrays, without importing torch.

They are the floating point tensors of ``state_dict``: weights, biases and running statistics.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learning.models.architectures import ModelError, Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

F32 = NDArray[np.float32]


def shapes_of(module: "nn.Module") -> dict[str, Shape]:
    """Return name -> shape of every parameter."""
    return {name: tuple(tensor.shape) for name, tensor in _tensors(module)}


def read(module: "nn.Module") -> dict[str, F32]:
    """Return name -> parameter; the arrays share the module's memory.

    Raises:
        ModelError: A parameter is not float32 or not in this machine's memory.
    """
    return {name: _view(name, tensor) for name, tensor in _tensors(module)}


def write(module: "nn.Module", values: Mapping[str, F32]) -> None:
    """Copy ``values`` into the module.

    Args:
        module: Its parameters are overwritten.
        values: Name -> array of exactly the module's names and shapes.

    Raises:
        ModelError: Names or shapes differ; the module is then unchanged.
    """
    own = read(module)
    expected = {name: array.shape for name, array in own.items()}
    given = {name: array.shape for name, array in values.items()}
    if given != expected:
        message = f"parameters: {_difference(expected, given)}"
        raise ModelError(message)
    for name, array in own.items():
        np.copyto(array, values[name])


def _tensors(module: "nn.Module") -> Iterator[tuple[str, "Tensor"]]:
    return (item for item in module.state_dict().items() if item[1].is_floating_point())


def _view(name: str, tensor: "Tensor") -> F32:
    kind = f"{tensor.dtype} on {tensor.device}"
    if kind != "torch.float32 on cpu":
        message = f"parameters: {name} is {kind}, it must be torch.float32 on cpu"
        raise ModelError(message)
    array: F32 = tensor.detach().numpy()
    return array


def _difference(expected: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    for name in sorted({*expected, *given}):
        if expected.get(name) != given.get(name):
            return f"{name} has shape {expected.get(name)} in the model, {given.get(name)} here"
    return "the same"
