"""Jobs for ``device_alone``: what central would hand a device, as files; uses torch and onnx."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.training.forward import forward_graph
from benchmarks.training.models import TIMED
from central.modeling.training_graph import StepSpec, build_training_graph
from learning.graph_file import encode_graph
from schemas.messages import TrainingPlan
from schemas.tasks import Training

EXAMPLES = 512


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The three arguments of ``device_alone``."""

    job: Path
    graph: Path
    plan: Path

    @property
    def arguments(self) -> tuple[str, str, str]:
        """As they stand on its command line."""
        return str(self.job), str(self.graph), str(self.plan)


def write_job(folder: Path, name: str, training: Training) -> JobFiles:
    """Write a job of one of the timed models on random examples that can be learnt."""
    subject = TIMED[name]
    spec = StepSpec(momentum=training.momentum)
    made = build_training_graph(forward_graph(subject), spec)
    x, y = subject.batch(EXAMPLES, seed=3)
    # The labels show in the examples, so that a few steps lower the loss.
    x += np.random.default_rng(4).standard_normal((subject.classes, *subject.shape))[y]
    plan = TrainingPlan(
        model=name,
        input_shape=subject.shape,
        classes=subject.classes,
        parameters=made.layout.size,
        layout_sha256=made.layout.digest,
        data="random",
        training=training,
        codec="raw-f32",
    )
    files = JobFiles(folder / "job.npz", folder / "graph", folder / "plan.json")
    shapes = {tensor.name: tensor.shape for tensor in made.layout.tensors}
    np.savez(files.job, x=x, y=y, parameters=made.first, shapes=json.dumps(shapes))
    files.graph.write_bytes(encode_graph(made.model.SerializeToString()))
    files.plan.write_text(plan.model_dump_json())
    return files
