"""Train the graphs of one folder: ``python train_alone.py FOLDER OUT.npz``.

Runs in any Python from 3.8 with numpy and onnxruntime; nothing of this project is imported. Prints
one JSON object: the versions, and the packages that must not be there but are.
"""

import importlib.util
import json
import platform
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def train(graph, case):
    """Return the parameters after one step for each batch of the case."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    parameters, state = case["parameters"], np.zeros(int(case["state_size"]), np.float32)
    for x, y in zip(case["x"], case["y"]):  # noqa: B905 - Python 3.8 has no ``strict``
        feed = {
            "parameters": parameters,
            "input": x,
            "labels": y,
            "mask": np.ones(len(x), np.float32),
            "learning_rate": case["learning_rate"],
        }
        if state.size:
            feed["state"] = state
        names = [output.name for output in session.get_outputs()]
        made = dict(zip(names, session.run(None, feed)))  # noqa: B905
        parameters, state = made["new_parameters"], made.get("new_state", state)
    return parameters


def main(folder, out):
    """Train every graph and write the parameters by the graph's name."""
    trained = {}
    for graph in sorted(Path(folder).glob("*.onnx")):
        with np.load(str(graph.with_suffix(".npz"))) as case:
            trained[graph.stem] = train(graph, case)
    np.savez(out, **trained)
    others = [name for name in ("torch", "onnx", "fedfleet") if importlib.util.find_spec(name)]
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "others": others,
    }
    print(json.dumps(versions))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
