"""The graphs that every runtime trains, and what torch makes of the same batches."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.training.forward import forward_graph
from benchmarks.training.models import PORTABLE, Subject
from central.modeling.training_graph import StepSpec, build_training_graph
from updates.arrays import F32
from updates.layout import Layout

STEPS = 10
BATCH = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """One optimizer, for the graph and for torch.

    Attributes:
        spec: What the graph computes.
        learning_rate: Of all steps.
    """

    spec: StepSpec
    learning_rate: float

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return torch's own."""
        spec, values = self.spec, module.parameters()
        if spec.optimizer == "sgd":
            return torch.optim.SGD(
                values, self.learning_rate, spec.momentum, 0, spec.weight_decay, spec.nesterov
            )
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer]
        return kind(values, self.learning_rate, weight_decay=spec.weight_decay)


RECIPES = {
    "lenet5": Recipe(StepSpec(), 0.05),
    "cnn-bn": Recipe(StepSpec(momentum=0.9, nesterov=True, weight_decay=1e-4), 0.02),
    "transformer": Recipe(StepSpec(optimizer="adamw", weight_decay=0.01), 1e-3),
    "lstm": Recipe(StepSpec(optimizer="adam"), 1e-3),
}


def write(folder: Path) -> dict[str, F32]:
    """Write ``NAME.onnx`` and ``NAME.npz`` of every case; return what torch trains them to."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _write(folder, name, PORTABLE[name]) for name in RECIPES}


def _write(folder: Path, name: str, subject: Subject) -> F32:
    recipe = RECIPES[name]
    graph = build_training_graph(forward_graph(subject), recipe.spec)
    x, y = subject.batch(STEPS * BATCH, seed=5)
    case = {
        "x": x.reshape(STEPS, BATCH, *subject.shape),
        "y": y.reshape(STEPS, BATCH),
        "learning_rate": np.float32(recipe.learning_rate),
        "parameters": graph.first,
        "state_size": np.int64(graph.state_size),
    }
    onnx.save(graph.model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", **case)
    return _trained_by_torch(subject, recipe, graph.layout, case)


def _trained_by_torch(
    subject: Subject, recipe: Recipe, layout: Layout, case: dict[str, np.ndarray]
) -> F32:
    module = subject.module().train()
    optimizer = recipe.optimizer(module)
    for x, y in zip(case["x"], case["y"], strict=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
    state = module.state_dict()
    return layout.flatten({one.name: state[one.name].numpy() for one in layout.tensors})
