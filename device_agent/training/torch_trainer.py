"""Trains a job with torch, which is imported when the first job begins."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device_agent.service.ports import (
    TrainingError,
    TrainingRequest,
    TrainingResult,
    TrainingStoppedError,
)
from device_agent.training.batches import batches, distinct_examples, total_steps
from learning.models import parameters, registry

if TYPE_CHECKING:
    from torch import nn

F32 = NDArray[np.float32]

_REPORTS = 20
#: Integer buffers (batch counters) are not in the layout.
_BUFFERS_ALLOWED = 1024


class TorchTrainer:
    """Trains built-in models, and those that the device's own settings allow.

    Args:
        allow_list: Name -> ``package.module:factory``.
        threads: torch's threads; one suits small models and leaves the device its other cores.
    """

    backend = "torch"

    def __init__(self, allow_list: Mapping[str, str] | None = None, threads: int = 1) -> None:
        self._allow_list = dict(allow_list or {})
        self._threads = threads

    def train(
        self,
        request: TrainingRequest,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        """Train one job; the same request gives the same bits.

        Besides the given parameters it holds the module, its gradients and the optimizer's
        state (one copy for momentum, two for Adam), and at the end the module and the delta.

        Raises:
            TrainingStoppedError: ``should_stop`` said so.
            TrainingError: The model cannot be built, does not fit the data, or diverged.
        """
        import torch  # noqa: PLC0415

        _check(request)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        entropy = [request.round_seed, request.plan.training.seed]
        rng = np.random.default_rng(entropy)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 62)))
                return self._train(request, rng, progress, should_stop)
        except registry.ModelError as error:
            raise TrainingError(str(error)) from error
        except (RuntimeError, TypeError, ValueError, IndexError, MemoryError) as error:
            message = f"model {request.plan.model}: {error}"
            raise TrainingError(message) from error

    def _train(
        self,
        request: TrainingRequest,
        rng: np.random.Generator,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        from device_agent.training.torch_steps import TorchJob  # noqa: PLC0415

        training, examples = request.plan.training, len(request.data)
        steps = total_steps(examples, training)
        reference = request.layout.unflatten(request.parameters)
        every = max(1, steps // _REPORTS)
        module = self._module(request, reference)

        def after_step(step: int) -> None:
            if should_stop():
                message = f"stopped after {step} of {steps} steps"
                raise TrainingStoppedError(message)
            if step % every == 0 or step == steps:
                progress(step / steps)

        job = TorchJob(module, request.data, training, reference)
        tally = job.run(batches(examples, training, rng), after_step)
        module.zero_grad(set_to_none=True)
        delta = _delta(module, request, reference)
        return TrainingResult(delta, distinct_examples(examples, training), tally.metrics())

    def _module(self, request: TrainingRequest, values: Mapping[str, F32]) -> "nn.Module":
        plan = request.plan
        module = registry.build(
            plan.model,
            plan.model_params,
            plan.input_shape,
            plan.classes,
            allow_list=self._allow_list,
            max_parameters=request.layout.size + _BUFFERS_ALLOWED,
        )
        parameters.write(module, values)
        return module


def _check(request: TrainingRequest) -> None:
    plan, data = request.plan, request.data
    if data.x.shape[1:] != plan.input_shape or data.classes != plan.classes:
        message = (
            f"data: {data.name} has shape {data.x.shape[1:]} and {data.classes} classes, "
            f"the job needs {plan.input_shape} and {plan.classes}"
        )
        raise TrainingError(message)
    if not len(data):
        message = f"data: {data.name} has no example"
        raise TrainingError(message)
    if request.parameters.shape != (request.layout.size,):
        message = f"parameters: {request.parameters.shape}, the layout has {request.layout.size}"
        raise TrainingError(message)


def _delta(module: "nn.Module", request: TrainingRequest, reference: Mapping[str, F32]) -> F32:
    delta = np.empty(request.layout.size, dtype=np.float32)
    views = request.layout.unflatten(delta)
    for name, trained in parameters.read(module).items():
        np.subtract(trained, reference[name], out=views[name])
    if not (np.isfinite(delta.min()) and np.isfinite(delta.max())):
        message = "the trained parameters are not finite; lower learning_rate"
        raise TrainingError(message)
    return delta
