"""Which trainers this device can run, found without importing their frameworks."""

from collections.abc import Mapping
from importlib.util import find_spec

from device_agent.service.ports import Trainer, TrainingError
from device_agent.training.drill import DrillTrainer
from device_agent.training.torch_trainer import TorchTrainer
from schemas.messages import TrainingPlan

#: Backend -> packages that it needs, best first.
REQUIRED_PACKAGES: Mapping[str, tuple[str, ...]] = {"torch": ("torch",)}


def installed() -> tuple[str, ...]:
    """Return the backends whose packages are installed, best first; a drill needs none."""
    return tuple(
        backend
        for backend, packages in REQUIRED_PACKAGES.items()
        if all(find_spec(package) is not None for package in packages)
    )


def trainer_for(
    plan: TrainingPlan, allow_list: Mapping[str, str] | None = None, threads: int = 1
) -> Trainer:
    """Return the trainer of one job.

    Args:
        plan: The job; ``requires.backend`` chooses among those installed.
        allow_list: Models beyond the built-in ones, name -> ``package.module:factory``.
        threads: Threads a trainer may use.

    Raises:
        TrainingError: No backend that the plan accepts is installed.
    """
    if plan.training.is_drill:
        return DrillTrainer()
    available = installed()
    wanted = plan.requires.backend or (available[0] if available else "torch")
    if wanted not in available:
        message = (
            f"backend: {wanted!r} is not installed; there is {', '.join(available) or 'none'}"
        )
        raise TrainingError(message)
    return TorchTrainer(allow_list, threads)
