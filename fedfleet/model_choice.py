"""Which model a person means on the command line: a name, a factory of theirs, or a file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fedfleet.errors import FleetError
from learning.models import architectures

if TYPE_CHECKING:
    from central.modeling.requests import ModelRequest

#: What a model is called that has no name of its own.
OWN = "own"
#: For a built-in model when nothing else is said: images of digits, or windows of sensors.
_USUAL_SHAPE = (1, 28, 28)
_USUAL_SHAPES = {"cnn1d": (6, 100), "resnet8": (3, 32, 32)}
_USUAL_CLASSES = 10


class ModelChoiceError(FleetError):
    """What was named is no model."""


def request_for(
    model: str,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    settings: Iterable[str] = (),
    seed: int = 0,
) -> "ModelRequest":
    """Return which model is meant.

    Args:
        model: A built-in name, ``package.module:factory``, or the path of an .onnx file.
        shape: Of one example; a file says its own.
        classes: Number of classes; likewise.
        settings: ``NAME=VALUE`` each, VALUE as JSON.
        seed: Of the first parameters.

    Raises:
        ModelChoiceError: It is neither, or a setting is not ``NAME=VALUE``.
    """
    from central.modeling.requests import ModelRequest, is_file  # noqa: PLC0415 - only here

    is_built_in = model in architectures.BUILT_IN
    if not is_built_in and not is_file(model) and ":" not in model:
        known = ", ".join(architectures.names())
        message = f"model: {model!r} is no .onnx file, no package.module:factory, nor of {known}"
        raise ModelChoiceError(message)
    usual = () if is_file(model) else _USUAL_SHAPES.get(model, _USUAL_SHAPE)
    try:
        return ModelRequest(
            model=model if is_built_in else OWN,
            params=dict(map(_setting, settings)),
            shape=shape or usual,
            classes=classes or (0 if is_file(model) else _USUAL_CLASSES),
            seed=seed,
            target=None if is_built_in else model,
        )
    except ValueError as error:
        message = f"model: {error}"
        raise ModelChoiceError(message) from error


def described(request: "ModelRequest") -> str:
    """Return what to call a model in a line of text."""
    if request.target is None:
        return request.model
    return Path(request.target).name if request.file else request.target


def _setting(text: str) -> tuple[str, bool | int | float | str | tuple[int, ...]]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        message = f"--set: {text!r} is not NAME=VALUE"
        raise ModelChoiceError(message)
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    return name, tuple(parsed) if isinstance(parsed, list) else parsed
