"""Build a model by name: a built-in one, or one that this program's settings allow.

A publisher can only choose among names; which code a name stands for is written here or in the
allow-list, never in a message. torch is imported when a model is built, not before.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from learning.models.architectures import (
    BUILT_IN,
    ModelError,
    Shape,
    check_input,
    check_params,
    names,
)
from schemas.tasks import Parameter

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelError", "build", "check_params", "names"]

#: More parameters than this are not allocated unless a caller allows them.
MAX_PARAMETERS = 100_000_000


def build(  # noqa: PLR0913
    name: str,
    params: Mapping[str, Parameter],
    input_shape: Shape,
    classes: int,
    seed: int | None = None,
    *,
    allow_list: Mapping[str, str] | None = None,
    max_parameters: int = MAX_PARAMETERS,
) -> "nn.Module":
    """Return a new module that maps ``(n, *input_shape)`` to logits ``(n, classes)``.

    Args:
        name: A built-in name or one of ``allow_list``.
        params: The model's settings.
        input_shape: Shape of one example.
        classes: Number of classes.
        seed: Decides the initial parameters, and leaves torch's own generator as it was.
        allow_list: Name -> ``package.module:factory``, from this program's own settings; the
            factory is called as ``(input_shape, classes, **params)``.
        max_parameters: A built-in model with more is refused before it is allocated.

    Raises:
        ModelError: The model is not known, its settings are wrong, or it cannot be built.
    """
    check_params(name, params, allow_list)
    check_input(name, input_shape, allow_list)
    factory = _factory(name, allow_list or {})
    if name not in (allow_list or {}):
        _check_size(name, lambda: factory(input_shape, classes, **params), max_parameters)
    return _built(name, lambda: factory(input_shape, classes, **params), seed)


def _built(name: str, make: Callable[[], "nn.Module"], seed: int | None) -> "nn.Module":
    import torch  # noqa: PLC0415

    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            module = make()
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            message = f"model: {name} cannot be built: {error}"
            raise ModelError(message) from error
    if not isinstance(module, torch.nn.Module):
        message = f"model: {name} is {type(module).__name__}, its factory must return a Module"
        raise ModelError(message)
    return module


def _check_size(name: str, make: Callable[[], "nn.Module"], limit: int) -> None:
    import torch  # noqa: PLC0415

    with torch.device("meta"):  # shapes without memory
        size = sum(math.prod(tensor.shape) for tensor in make().state_dict().values())
    if size > limit:
        message = f"model: {name} would have {size} parameters, at most {limit} are allowed"
        raise ModelError(message)


def _factory(name: str, allow_list: Mapping[str, str]) -> Callable[..., "nn.Module"]:
    if name in allow_list and name in BUILT_IN:
        message = f"model: {name!r} is built in; give the allowed one another name"
        raise ModelError(message)
    target = allow_list.get(name) or BUILT_IN[name].factory
    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"model: {name!r} stands for {target!r}, which cannot be imported: {error}"
        raise ModelError(message) from error
    return cast("Callable[..., nn.Module]", found)
