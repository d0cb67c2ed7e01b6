"""Which trainers this device can run, found without importing their frameworks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from device_agent.core.backend import DRILL, ONNX, TORCH
from device_agent.service.ports import Trainer, TrainingError
from device_agent.training.drill import DrillTrainer
from device_agent.training.onnx_runtime import ON_CPU, Providers
from device_agent.training.onnx_trainer import OnnxTrainer
from device_agent.training.torch_trainer import TorchTrainer
from schemas.messages import TrainingPlan

#: Backend -> packages that it needs, best first.
REQUIRED_PACKAGES: Mapping[str, tuple[str, ...]] = {ONNX: ("onnxruntime",), TORCH: ("torch",)}

Choice = Literal["auto", "onnx", "torch"]


def installed(choice: Choice = "auto") -> tuple[str, ...]:
    """Return the backends whose packages are installed, best first; a drill needs none.

    Args:
        choice: The one that the device's owner allows; ``auto``: all.
    """
    return tuple(
        backend
        for backend, packages in REQUIRED_PACKAGES.items()
        if choice in {"auto", backend}
        and all(find_spec(package) is not None for package in packages)
    )


@dataclass(slots=True)
class Trainers:
    """This device's trainers, each made when its first job comes.

    Attributes:
        available: Backends, best first.
        allow_list: Models of torch beyond the built-in ones, name -> ``package.module:factory``.
        threads: Threads a trainer may use.
        providers: What onnx computes on and in.
    """

    available: tuple[str, ...]
    allow_list: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    providers: Providers = ON_CPU
    _made: dict[str, Trainer] = field(default_factory=dict)

    def of(self, plan: TrainingPlan, backend: str) -> Trainer:
        """Return the trainer of one job.

        Args:
            plan: The job.
            backend: What it was chosen to be done with.

        Raises:
            TrainingError: That backend is not here.
        """
        if plan.training.is_drill:
            return DrillTrainer()
        if backend not in self.available:
            there = ", ".join(self.available) or "none"
            message = f"backend: {backend!r} is not installed; there is {there}"
            raise TrainingError(message)
        return self._made.get(backend) or self._made.setdefault(backend, self._make(backend))

    def _make(self, backend: str) -> Trainer:
        if backend == ONNX:
            return OnnxTrainer(self.threads, self.providers)
        return TorchTrainer(self.allow_list, self.threads)


__all__ = ["DRILL", "ONNX", "TORCH", "Trainers", "installed"]
