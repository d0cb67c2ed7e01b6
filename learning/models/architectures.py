"""Names and settings of the built-in architectures; torch is not needed to check them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.tasks import Parameter

Shape = tuple[int, ...]
Check = Callable[[Parameter], str | None]

_MAX_WIDTH = 65_536
_MAX_LAYERS = 16
_LENET_SIDE = 28
_RESNET_SIDE = 4
_IMAGE_DIMENSIONS = 3
_WINDOW_DIMENSIONS = 2
_MIN_LENGTH = 4


class ModelError(ValueError):
    """A model is not known, or cannot be built with these settings for this data."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One built-in architecture.

    Attributes:
        factory: ``package.module:function``, called as ``(input_shape, classes, **params)``.
        params: Setting -> check, which returns what is wrong with a value, or None.
        misfit: Returns what is wrong with the shape of one example, or None.
    """

    factory: str
    params: Mapping[str, Check]
    misfit: Callable[[Shape], str | None]


def _width_fault(value: Parameter) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_WIDTH:
        return f"it must be a whole number from 1 to {_MAX_WIDTH}"
    return None


def _widths_fault(value: Parameter) -> str | None:
    if isinstance(value, tuple) and len(value) <= _MAX_LAYERS:
        return next(filter(None, map(_width_fault, value)), None)
    return f"it must be a list of at most {_MAX_LAYERS} widths, such as [200]"


def _any_shape(_: Shape) -> str | None:
    return None


def _image_misfit(shape: Shape) -> str | None:
    fits = len(shape) == _IMAGE_DIMENSIONS and shape[0] == 1 and max(shape) <= _LENET_SIDE
    return None if fits else f"it takes (1, h, w) up to (1, {_LENET_SIDE}, {_LENET_SIDE})"


def _window_misfit(shape: Shape) -> str | None:
    fits = len(shape) == _WINDOW_DIMENSIONS and shape[1] >= _MIN_LENGTH
    return None if fits else f"it takes (channels, length) with at least {_MIN_LENGTH} samples"


def _picture_misfit(shape: Shape) -> str | None:
    fits = len(shape) == _IMAGE_DIMENSIONS and min(shape[1:]) >= _RESNET_SIDE
    return None if fits else f"it takes (c, h, w) from {_RESNET_SIDE} pixels a side"


BUILT_IN: Mapping[str, Architecture] = {
    "softmax": Architecture("learning.models.mlp:softmax", {}, _any_shape),
    "mlp": Architecture("learning.models.mlp:mlp", {"hidden": _widths_fault}, _any_shape),
    "lenet5": Architecture("learning.models.lenet5:LeNet5", {}, _image_misfit),
    "cnn1d": Architecture("learning.models.cnn1d:Cnn1d", {"width": _width_fault}, _window_misfit),
    "resnet8": Architecture(
        "learning.models.resnet8:ResNet8", {"width": _width_fault}, _picture_misfit
    ),
}


def names(allow_list: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the names of all models, built in and allowed by ``allow_list``, sorted."""
    return tuple(sorted({*BUILT_IN, *(allow_list or {})}))


def check_params(
    name: str, params: Mapping[str, Parameter], allow_list: Mapping[str, str] | None = None
) -> None:
    """Check the settings of a model, as far as that is possible without building it.

    Args:
        name: A built-in name or one of ``allow_list``.
        params: Setting -> value.
        allow_list: Name -> ``package.module:factory``, from this program's own settings.

    Raises:
        ModelError: The name or a setting is not known, or a value is out of range.
    """
    if name in (allow_list or {}):
        return
    architecture = _known(name, allow_list)
    for key, value in params.items():
        if key not in architecture.params:
            known = ", ".join(architecture.params) or "none"
            message = f"model_params.{key}: {name} has no such setting; it has: {known}"
            raise ModelError(message)
        fault = architecture.params[key](value)
        if fault:
            message = f"model_params.{key}: {value!r}, {fault}"
            raise ModelError(message)


def check_input(
    name: str, input_shape: Shape, allow_list: Mapping[str, str] | None = None
) -> None:
    """Check that a model can take examples of one shape, without building it.

    Raises:
        ModelError: The name is not known, or the shape is not one that it takes.
    """
    if name in (allow_list or {}):
        return
    misfit = _known(name, allow_list).misfit(input_shape)
    if misfit:
        message = f"model: {name} cannot take examples of shape {input_shape}: {misfit}"
        raise ModelError(message)


def _known(name: str, allow_list: Mapping[str, str] | None) -> Architecture:
    if name not in BUILT_IN:
        message = f"model: {name!r} is not known; known are {', '.join(names(allow_list))}"
        raise ModelError(message)
    return BUILT_IN[name]
