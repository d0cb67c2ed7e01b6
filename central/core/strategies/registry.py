"""The aggregation rules that a task may name."""

from collections.abc import Callable, Mapping
from typing import Any

from central.core.strategies.base import Strategy
from central.core.strategies.fedavg import FedAvg


class UnknownStrategyError(ValueError):
    """A task names a strategy that central does not have."""


def _mean(**params: Any) -> Strategy:  # noqa: ANN401
    return FedAvg(weighted=False, **params)


def _fedavg(**params: Any) -> Strategy:  # noqa: ANN401
    return FedAvg(weighted=True, **params)


BUILT_IN: dict[str, Callable[..., Strategy]] = {"fedavg": _fedavg, "mean": _mean}


#: Those that move the model by ``Contributions.scale`` of their step.
SCALED = frozenset(BUILT_IN)


def weighs_examples(name: str) -> bool:
    """Tell whether a strategy weighs each update by its examples; all do but ``mean``."""
    return name != "mean"


def create(
    name: str,
    params: Mapping[str, object],
    own: Mapping[str, Callable[..., Strategy]] | None = None,
) -> Strategy:
    """Return the strategy called ``name`` with its parameters.

    Args:
        name: As in the task.
        params: The task's ``strategy_params``.
        own: A user's factories by name, as central's settings list them.

    Raises:
        UnknownStrategyError: There is none of that name; the text lists those that exist.
        ValueError: A parameter is unknown or out of its range.
    """
    factories = {**BUILT_IN, **(own or {})}
    if name not in factories:
        known = ", ".join(sorted(factories))
        message = f"strategy: {name!r} is not known; there are: {known}"
        raise UnknownStrategyError(message)
    try:
        return factories[name](**params)
    except TypeError as error:
        message = f"strategy_params: {error}"
        raise ValueError(message) from error
