"""Trains a job with torch, which is imported when the first job begins."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device_agent.service.ports import TrainingError, TrainingRequest, TrainingResult
from device_agent.training.batches import batches, distinct_examples, total_steps
from device_agent.training.graph_reader import GraphError, read_graph
from device_agent.training.steps import check_delta, check_request, follow
from learning.graph_file import decode_graph, unpacked_limit
from learning.models import parameters, registry
from schemas.errors import PayloadError

if TYPE_CHECKING:
    from torch import nn

F32 = NDArray[np.float32]

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

        check_request(request)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        entropy = [request.round_seed, request.plan.training.seed]
        rng = np.random.default_rng(entropy)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(rng.integers(1 << 62)))
                return self._train(request, rng, progress, should_stop)
        except (registry.ModelError, GraphError, PayloadError) as error:
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
        module = self._module(request, reference)
        job = TorchJob(module, request.data, training, reference, request.state)
        tally = job.run(batches(examples, training, rng), follow(steps, progress, should_stop))
        module.zero_grad(set_to_none=True)
        delta = _delta(module, request, reference)
        count, state = distinct_examples(examples, training), job.state()
        return TrainingResult(delta, count, tally.metrics(), state)

    def _module(self, request: TrainingRequest, values: Mapping[str, F32]) -> "nn.Module":
        plan = request.plan
        module = registry.build(
            plan.model,
            plan.model_params,
            plan.input_shape,
            plan.classes,
            allow_list=self._allow_list,
            max_parameters=request.layout.size + _BUFFERS_ALLOWED + _most_frozen(request),
        )
        parameters.write(module, {**_stored(module, values, request), **values})
        return module


def _delta(module: "nn.Module", request: TrainingRequest, reference: Mapping[str, F32]) -> F32:
    delta = np.empty(request.layout.size, dtype=np.float32)
    views = request.layout.unflatten(delta)
    trained = parameters.read(module)
    for name, view in views.items():
        np.subtract(trained[name], reference[name], out=view)
    return check_delta(delta)


def _most_frozen(request: TrainingRequest) -> int:
    """Return a bound on the number of frozen parameters, which the graph holds."""
    return 0 if request.graph is None else unpacked_limit(request.graph.stat().st_size) // 4


def _stored(
    module: "nn.Module", values: Mapping[str, F32], request: TrainingRequest
) -> dict[str, F32]:
    """Return what does not travel with the model: constants, and what the graph holds frozen."""
    missing = parameters.shapes_of(module).keys() - values.keys()
    trained = {name for name, _ in module.named_parameters()}
    constants = {n: v for n, v in parameters.read(module).items() if n in missing - trained}
    missing &= trained
    if not missing or request.graph is None:
        return constants
    packed = request.graph.read_bytes()
    graph = read_graph(decode_graph(packed, unpacked_limit(len(packed))))
    found = {name: value for name in missing if (value := graph.floats(name)) is not None}
    if lost := sorted(missing - found.keys()):
        message = f"frozen: the graph has no {lost[0]!r} as it is in torch; onnx can train it"
        raise TrainingError(message)
    return constants | found
