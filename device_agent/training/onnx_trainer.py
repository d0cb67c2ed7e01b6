"""Trains a job with onnxruntime and NumPy alone: the task's graph computes each whole step.

The order of the examples is the torch trainer's, bit for bit; onnxruntime is imported when the
first job begins. A session is kept for the next round of the same task.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_agent.service.ports import TrainingError, TrainingRequest, TrainingResult
from device_agent.training.batches import batches, distinct_examples, total_steps
from device_agent.training.graph_reader import INT64, GraphError
from device_agent.training.onnx_runtime import ON_CPU, Providers
from device_agent.training.onnx_step import Feed, OnnxStep
from device_agent.training.steps import Tally, check_delta, check_request, follow, targets
from schemas.errors import PayloadError

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


class OnnxTrainer:
    """Trains whatever a training graph holds; no code of a model is needed.

    Args:
        threads: The runtime's threads for one operator.
        providers: What it computes on and in.
    """

    backend = "onnx"

    def __init__(self, threads: int = 1, providers: Providers = ON_CPU) -> None:
        self._threads = threads
        self._providers = providers
        self._kept: tuple[object, OnnxStep] | None = None

    def train(
        self,
        request: TrainingRequest,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> TrainingResult:
        """Train one job; the same request gives the same bits on the same provider.

        Besides the given parameters it holds the new ones, the optimizer's state (one copy for
        momentum, two for Adam) and what the runtime needs for one step.

        Raises:
            TrainingStoppedError: ``should_stop`` said so.
            TrainingError: The graph cannot be used, does not fit the job, or training diverged.
        """
        check_request(request)
        step = self._load(request)
        rng = np.random.default_rng([request.round_seed, request.plan.training.seed])
        _seed(int(rng.integers(1 << 62)))
        training, examples = request.plan.training, len(request.data)
        steps = total_steps(examples, training)
        job = _Job.begin(step, request, steps)
        tally = job.run(batches(examples, training, rng), follow(steps, progress, should_stop))
        delta = check_delta(job.parameters - request.parameters)
        state = job.state if training.keep_state and step.state_size else None
        return TrainingResult(delta, distinct_examples(examples, training), tally.metrics(), state)

    def _load(self, request: TrainingRequest) -> OnnxStep:
        if request.graph is None:
            message = "graph: the job came without one"
            raise TrainingError(message)
        # The file's name is its digest; what else decides is what it is checked against.
        key = (request.graph, request.plan.model_dump_json())
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            try:
                step = OnnxStep.load(request.graph, request.plan, self._threads, self._providers)
            except (OSError, PayloadError, GraphError) as error:
                raise TrainingError(str(error)) from error
            except TrainingError:
                raise
            except Exception as error:  # the runtime's own have no common class
                message = f"model {request.plan.model}: {error}"
                raise TrainingError(message) from error
            self._kept = (key, step)
        return self._kept[1]


@dataclass(slots=True)
class _Job:
    """One job's steps: parameters and state go from each one to the next."""

    step: OnnxStep
    request: TrainingRequest
    steps: int
    parameters: F32
    state: F32
    fixed: Feed = field(default_factory=dict)
    size: int = 1

    @classmethod
    def begin(cls, step: OnnxStep, request: TrainingRequest, steps: int) -> "_Job":
        training = request.plan.training
        given = request.state
        if given is None or given.shape != (step.state_size,):
            given = np.zeros(step.state_size, dtype=np.float32)
        fixed: Feed = {
            "learning_rate": np.array(training.learning_rate, dtype=np.float32),
            "proximal_mu": np.array(training.proximal_mu, dtype=np.float32),
            "clip_norm": np.array(training.gradient_clip_norm or 0.0, dtype=np.float32),
            "reference": request.parameters,
        }
        size = step.padded_to(training.batch_size)
        return cls(step, request, steps, request.parameters, given, step.fitting(fixed), size)

    def run(self, batches: Iterable[I64], after_step: Callable[[int], None]) -> Tally:
        """Take one step for each batch of indices."""
        tally = Tally(self.request.plan.training)
        for number, indices in enumerate(batches, start=1):
            loss, correct = self._take(indices, is_last=number == self.steps)
            tally.count(number, len(indices), loss, correct)
            after_step(number)
        return tally

    def _take(self, indices: I64, *, is_last: bool) -> tuple[float, int]:
        feed = {**self.fixed, **self._batch(indices)}
        feed |= self.step.fitting({"parameters": self.parameters, "state": self.state})
        try:
            found = self.step.run(feed, is_last=is_last)
        except Exception as error:  # the runtime's own have no common class
            message = f"model {self.request.plan.model}: {error}"
            raise TrainingError(message) from error
        self.parameters = found["new_parameters"]
        self.state = found.get("new_state", self.state)
        return float(found["loss"]), int(found["correct"])

    def _batch(self, indices: I64) -> Feed:
        data, plan = self.request.data, self.request.plan
        missing = max(0, self.size - len(indices))
        mask = np.ones(len(indices) + missing, dtype=np.float32)
        mask[len(indices) :] = 0.0
        # The first example, again, in the place of each one that is missing.
        chosen = np.concatenate([indices, indices[:1].repeat(missing)]) if missing else indices
        feed: Feed = {"input": data.x[chosen], "mask": mask}
        if (labels := self.step.labels) is not None:
            y = data.y[chosen]
            hot = targets(y, plan.classes, labels.sizes[1:]) if labels.element != INT64 else y
            feed["labels"] = hot
        return self.step.fitting(feed)


def _seed(seed: int) -> None:
    """Seed what the runtime draws, such as dropout's masks."""
    import onnxruntime  # noqa: PLC0415

    onnxruntime.set_seed(seed)
