"""What tasks may name here: built-in models, codecs and strategies, and those of the settings."""

from collections.abc import Callable, Mapping
from importlib import import_module

from central.core import downlink
from central.core.strategies import registry
from central.core.strategies.base import Strategy
from central.service.ports import Modeler
from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from updates.choice import task_memory


class PluginError(ValueError):
    """A setting names code that cannot be imported."""


class InstalledCatalog:
    """The port ``Catalog``."""

    def __init__(
        self, modeler: Modeler, strategies: Mapping[str, Callable[..., Strategy]]
    ) -> None:
        self._modeler = modeler
        self._strategies = strategies

    def check(self, submission: TaskSubmission) -> None:
        """Check the names and the parameters in a task, in the order in which they are written.

        Raises:
            ValueError: The text names the field, the value and what is allowed.
        """
        if submission.model.endswith(".onnx"):
            message = (
                f"model: {submission.model!r} is an ONNX file; central's setting `models` "
                "gives files their names, use one of those"
            )
            raise ValueError(message)
        self._modeler.check(submission)
        memory = task_memory(submission.codec, submission.codec_params, submission.error_feedback)
        if memory == "lazy":
            _check_lazy(submission)
        if submission.downlink is not None:
            downlink.check(submission.downlink.codec, submission.downlink.codec_params)
        registry.create(submission.strategy, submission.strategy_params, self._strategies)
        if submission.scale_exponent and submission.strategy not in registry.SCALED:
            known = ", ".join(sorted(registry.SCALED))
            message = (
                f"scale_exponent: {submission.scale_exponent:g} with strategy "
                f"{submission.strategy!r}: only {known} take it; use 0"
            )
            raise ValueError(message)

    def has_evaluation(self, data: DataDescription) -> bool:
        """Tell whether there is a held-out set for such data."""
        return self._modeler.has_evaluation(data)


def _check_lazy(submission: TaskSubmission) -> None:
    """Refuse what contradicts a sum over all devices, those that skip a round included."""
    if submission.uplink_budget_bits is not None:
        message = (
            f"uplink_budget_bits: {submission.uplink_budget_bits} with codec "
            f"{submission.codec!r}: its devices say themselves when they skip a round; "
            "take another codec or no budget"
        )
        raise ValueError(message)
    if submission.scale_exponent:
        message = (
            f"scale_exponent: {submission.scale_exponent:g} with codec {submission.codec!r}: "
            "its sum is always over all devices; use 0"
        )
        raise ValueError(message)


def load_strategies(named: Mapping[str, str]) -> dict[str, Callable[..., Strategy]]:
    """Return the strategies that the settings name, each a factory.

    Args:
        named: ``package.module:function`` by name; the function takes a task's
            ``strategy_params`` and returns a ``Strategy``.

    Raises:
        PluginError: One cannot be imported or is not callable.
    """
    return {name: _import(name, target) for name, target in named.items()}


def _import(name: str, target: str) -> Callable[..., Strategy]:
    module_name, _, attribute = target.partition(":")
    try:
        found: Callable[..., Strategy] = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"strategies.{name}: {target!r} cannot be imported: {error}"
        raise PluginError(message) from error
    if not callable(found):
        message = f"strategies.{name}: {target!r} is not callable"
        raise PluginError(message)
    return found
