"""Train one job as a device does: ``python device_alone.py JOB.npz GRAPH PLAN.json``.

It runs by its path, in an environment that may hold nothing of central's; there and elsewhere,
importing torch or onnx fails. Prints one JSON object.
"""

import sys
import time

_BEGAN_S = time.perf_counter()
FORBIDDEN = ("torch", "onnx", "onnxscript", "sklearn", "matplotlib")
sys.modules.update(dict.fromkeys(FORBIDDEN))  # None: the import fails, and nothing is found

import json  # noqa: E402
import re  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

import device_agent.app  # noqa: E402, F401 - so that the whole agent is counted
from device_agent.service.ports import TrainingRequest  # noqa: E402
from device_agent.training.onnx_trainer import OnnxTrainer  # noqa: E402
from learning.data.dataset import Dataset  # noqa: E402
from schemas.messages import TrainingPlan  # noqa: E402
from updates.layout import Layout  # noqa: E402

_KIB = 1024


def resident_bytes() -> tuple[int, int]:
    """Return the resident memory of this process now, and the most that it was (Linux)."""
    status = Path("/proc/self/status").read_text()
    now, most = (re.findall(rf"{key}:\s+(\d+) kB", status)[0] for key in ("VmRSS", "VmHWM"))
    return int(now) * _KIB, int(most) * _KIB


def main(job: str, graph: str, plan_file: str) -> None:
    """Train the job and tell what it took."""
    imported_s = time.perf_counter() - _BEGAN_S
    plan = TrainingPlan.model_validate_json(Path(plan_file).read_text())
    with np.load(job) as arrays:
        data = Dataset(arrays["x"], arrays["y"], plan.classes, plan.data)
        names, parameters = json.loads(str(arrays["shapes"])), arrays["parameters"]
    request = TrainingRequest(plan, Layout.of(names), parameters, data, 1, graph=Path(graph))
    steps_s: list[float] = []

    def after_step() -> bool:
        steps_s.append(time.perf_counter() - _BEGAN_S)
        return False

    result = OnnxTrainer().train(request, lambda _: None, after_step)
    now, most = resident_bytes()
    told = {
        "imported_s": imported_s,
        "first_step_s": steps_s[0],
        "steps": len(steps_s),
        "resident_bytes": now,
        "peak_bytes": most,
        "moved": float(np.linalg.norm(result.delta)),
        "metrics": result.metrics,
        "loaded": [name for name in FORBIDDEN if sys.modules.get(name)],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
