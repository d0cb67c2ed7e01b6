"""Which of a device's backends does a job. Pure; no trainer's framework is needed."""

from collections.abc import Sequence

from schemas.messages import TrainingPlan

ONNX = "onnx"
TORCH = "torch"
#: What a job that trains nothing is done with, on every device.
DRILL = "drill"


def choose(plan: TrainingPlan, backends: Sequence[str], *, has_graph: bool) -> str | None:
    """Return the first backend that can do a job, or None.

    Args:
        plan: The job; ``requires.backend`` may name one.
        backends: What this device has, best first.
        has_graph: Whether the job comes with a training graph, which onnx needs.
    """
    if plan.training.is_drill:
        return DRILL
    fitting = (
        backend
        for backend in backends
        if plan.requires.backend in {None, backend}
        and (has_graph or backend != ONNX)
        and (plan.training.loss != "model" or backend == ONNX)
    )
    return next(fitting, None)


def needs_graph(plan: TrainingPlan, backend: str | None) -> bool:
    """Tell whether a job's graph is needed: to train with it, or for what is frozen in it."""
    return backend == ONNX or (backend == TORCH and bool(plan.training.frozen))
