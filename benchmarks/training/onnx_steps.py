"""Steps of a training graph: ``python -m benchmarks.training.onnx_steps GRAPH THREADS SECONDS``.

``GRAPH.onnx`` and ``GRAPH.npz`` lie side by side. Neither torch nor onnx is imported.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.training.timing import report, timed
from device_agent.training.graph_reader import read_graph
from device_agent.training.onnx_runtime import ON_CPU, make_session

_LEARNING_RATE = 0.01


def open_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    """Return a session as the device's trainer makes it."""
    file = graph.read_bytes()
    return make_session(file, read_graph(file).nodes, threads, ON_CPU)


def first_feed(graph: Path) -> dict[str, np.ndarray]:
    """Return the inputs of a step."""
    with np.load(graph.with_suffix(".npz")) as case:
        feed = {name: case[name] for name in ("parameters", "input", "labels")}
    feed["mask"] = np.ones(len(feed["labels"]), np.float32)
    feed["learning_rate"] = np.array(_LEARNING_RATE, np.float32)
    return feed


def main(graph: str, threads: str, budget_s: str) -> None:
    """Time the steps of one graph, each with the parameters that the last one gave."""
    session = open_session(Path(graph), int(threads))
    feed = first_feed(Path(graph))
    names = ["new_parameters", "loss", "correct"]

    def step() -> None:
        feed["parameters"] = session.run(names, feed)[0]

    report(timed(step, float(budget_s)))


if __name__ == "__main__":
    main(*sys.argv[1:])
