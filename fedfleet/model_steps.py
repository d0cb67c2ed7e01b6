"""Measures the steps of one backend: ``python -m fedfleet.model_steps``, the request on stdin."""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from device_agent.service.ports import TrainingRequest
from device_agent.training.backends import Trainers
from fedfleet.peak import peak_bytes
from learning.data.dataset import Dataset
from schemas.base import WireMessage
from schemas.messages import TrainingPlan
from schemas.tasks import Parameter, Training
from updates.model_file import decode_model

_WARM_UP = 5
_BATCHES = 4


class StepsRequest(WireMessage):
    """Which steps to take; ``folder`` holds the model and its training graph."""

    backend: str
    model: str
    params: dict[str, Parameter]
    shape: tuple[int, ...]
    classes: int
    target: str | None
    training: Training
    folder: str
    steps: int
    threads: int


def main() -> None:
    """Train on random examples and print the median step, in ms, and the peak of memory."""
    request = StepsRequest.model_validate_json(sys.stdin.buffer.read())
    job = _job(request)
    allowed = {request.model: request.target} if request.target else {}
    trainers = Trainers((request.backend,), allowed, request.threads)
    ends: list[float] = []

    def should_stop() -> bool:
        ends.append(time.perf_counter())
        return False

    trainers.of(job.plan, request.backend).train(job, lambda _: None, should_stop)
    gaps = np.diff(ends)[_WARM_UP:] * 1e3
    found = {
        "median_ms": statistics.median(gaps.tolist()),
        "p10_ms": float(np.percentile(gaps, 10)),
        "rss_bytes": peak_bytes(),
    }
    sys.stdout.write(json.dumps(found))


def _job(request: StepsRequest) -> TrainingRequest:
    folder = Path(request.folder)
    layout, vector = decode_model((folder / "model.safetensors").read_bytes())
    steps = request.steps + _WARM_UP + 1
    update = {"steps": steps, "learning_rate": 1e-4}
    plan = TrainingPlan(
        model=request.model,
        model_params=request.params,
        input_shape=request.shape,
        classes=request.classes,
        parameters=layout.size,
        layout_sha256=layout.digest,
        data="random",
        training=request.training.model_copy(update=update),
        codec="raw-f32",
    )
    rng = np.random.default_rng(0)
    examples = request.training.batch_size * _BATCHES
    x = rng.standard_normal((examples, *request.shape), dtype=np.float32)
    y = rng.integers(request.classes, size=examples)
    data = Dataset(x, y, request.classes, "random")
    return TrainingRequest(plan, layout, vector, data, 1, folder / "graph.zlib")


if __name__ == "__main__":
    main()
