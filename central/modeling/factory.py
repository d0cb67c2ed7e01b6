"""The model that a task begins with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learning.models import parameters, registry
from schemas.tasks import Parameter
from updates.layout import Layout

if TYPE_CHECKING:
    from torch import nn

F32 = NDArray[np.float32]


class ModelFactory:
    """Builds models by name, and tells their layout and initial parameters.

    Args:
        allow_list: Models beyond the built-in ones, name -> ``package.module:factory``; from
            central's own settings, never from a message.
        max_parameters: Larger models are refused before they are allocated.
    """

    def __init__(
        self,
        allow_list: Mapping[str, str] | None = None,
        max_parameters: int = registry.MAX_PARAMETERS,
    ) -> None:
        self._allow_list = dict(allow_list or {})
        self._max_parameters = max_parameters

    def check(self, name: str, params: Mapping[str, Parameter]) -> None:
        """Check a model's name and settings without building it, nor importing torch.

        Raises:
            ModelError: The text names the field, its value and the limit.
        """
        registry.check_params(name, params, self._allow_list)

    def describe(
        self,
        name: str,
        params: Mapping[str, Parameter],
        input_shape: tuple[int, ...],
        classes: int,
        seed: int,
    ) -> tuple[Layout, F32]:
        """Return the layout and the initial parameters, shape ``(layout.size,)``.

        Args:
            name: Which model.
            params: Its settings.
            input_shape: Shape of one example.
            classes: Number of classes.
            seed: The same seed gives the same bits.

        Raises:
            ModelError: The model is not known or cannot be built for this data.
        """
        module = self._build(name, params, input_shape, classes, seed)
        layout = Layout.of(parameters.shapes_of(module))
        return layout, layout.flatten(parameters.read(module))

    def restore(
        self,
        name: str,
        params: Mapping[str, Parameter],
        input_shape: tuple[int, ...],
        classes: int,
        vector: F32,
    ) -> "nn.Module":
        """Return the model with the parameters in ``vector``, in evaluation mode.

        Args:
            name: Which model.
            params: Its settings.
            input_shape: Shape of one example.
            classes: Number of classes.
            vector: Parameters in the model's layout, shape ``(layout.size,)``.

        Raises:
            ModelError: The model is not known or cannot be built for this data.
            PayloadError: The vector is not one of this model.
        """
        module = self._build(name, params, input_shape, classes, None)
        layout = Layout.of(parameters.shapes_of(module))
        parameters.write(module, layout.unflatten(vector))
        return module.eval()

    def _build(
        self,
        name: str,
        params: Mapping[str, Parameter],
        input_shape: tuple[int, ...],
        classes: int,
        seed: int | None,
    ) -> "nn.Module":
        return registry.build(
            name,
            params,
            input_shape,
            classes,
            seed,
            allow_list=self._allow_list,
            max_parameters=self._max_parameters,
        )
