"""Settings of central."""

from pathlib import Path

from pydantic import AliasChoices, Field

from schemas.tasks import Name
from transport.metrics_settings import MetricsSettings


class CentralSettings(MetricsSettings):
    """``models`` and ``strategies`` are the only code and files that a task may name."""

    min_clients: int = Field(
        default=2, ge=1, validation_alias=AliasChoices("min_clients", "MIN_CLIENTS")
    )
    eval_data: tuple[str, ...] = Field(default=(), description="held-out sets, as a device's data")
    models: dict[Name, str] = Field(
        default_factory=dict, description="NAME: package.module:fn, or path/to/file.onnx"
    )
    model_cache: Path | None = Field(
        default=None, description="folder of forward graphs; default: in the state directory"
    )
    prepare_timeout_s: float = Field(
        default=900.0, gt=0, le=86_400, description="how long building a model may take"
    )
    strategies: dict[Name, str] = Field(
        default_factory=dict, description="NAME: package.module:fn"
    )
    compiled_sums: bool = Field(
        default=False,
        description="add large updates up with numba: up to 3 times faster, 120 MB more memory",
    )
    keep_task_days: float = Field(default=30.0, gt=0)
