"""Training graphs of the timed models as files. Imports torch and onnx."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.training.forward import forward_graph
from benchmarks.training.models import Subject
from central.modeling.training_graph import StepSpec, build_training_graph


@dataclass(frozen=True, slots=True)
class GraphFile:
    """One graph on the disk, with ``NAME.npz`` beside it.

    Attributes:
        path: ``NAME.onnx``.
        trainable: Number of values that travel.
        nodes: Of the graph.
        size_bytes: Of the file.
    """

    path: Path
    trainable: int
    nodes: int
    size_bytes: int


def write_graph(folder: Path, name: str, subject: Subject, batch: int) -> GraphFile:
    """Build one model's training graph and write it with its first parameters and a batch."""
    graph = build_training_graph(forward_graph(subject), StepSpec())
    path = folder / f"{name}.onnx"
    onnx.save(graph.model, path)
    x, y = subject.batch(batch, seed=1)
    np.savez(path.with_suffix(".npz"), parameters=graph.first, input=x, labels=y)
    return read_graph(path)


def read_graph(path: Path) -> GraphFile:
    """Return what ``write_graph`` wrote before."""
    nodes = len(onnx.load(path).graph.node)
    with np.load(path.with_suffix(".npz")) as case:
        return GraphFile(path, case["parameters"].size, nodes, path.stat().st_size)
