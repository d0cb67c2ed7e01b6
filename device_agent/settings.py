"""Settings of a device agent."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from schemas.ids import DeviceId, RegionId
from schemas.limits import MIB
from schemas.profiles import Precision, Provider
from schemas.tasks import Name
from transport.settings import ConnectionSettings


class DeviceSettings(ConnectionSettings):
    """Who the device is, what data it has, and what its owner allows."""

    region: RegionId
    id: DeviceId = Field(description="unique in the fleet; auto: drawn once, kept with the state")
    data: tuple[str, ...] = Field(default=(), description="data sources: digits, mnist=DIR, ...")
    shard: str | None = Field(default=None, pattern=r"^[0-9]+/[0-9]+\z", description="I/N, from 1")
    sample: int | None = Field(
        default=None, ge=1, description="examples drawn from each source, by the device's id"
    )
    alpha: float | None = Field(default=None, gt=0, description="Dirichlet; unset: IID shards")
    split_seed: int = Field(default=0, ge=0)
    policy: Path | None = Field(default=None, description="local policy, a TOML file")
    models: dict[Name, str] = Field(default_factory=dict, description="NAME: package.module:fn")
    profile: str = Field(
        default="auto", min_length=1, max_length=400, description="a name, FILE.yaml or auto"
    )
    metered: Literal["auto", "yes", "no"] = Field(
        default="auto", description="whether bytes on its link are paid for; auto: modems are"
    )
    mem_ballast_mb: int = Field(
        default=0, ge=0, le=1 << 20, description="MiB taken for nothing, to be like a small device"
    )
    heartbeat_s: float = Field(default=30.0, ge=1, le=3600)
    outbox_quota_bytes: int = Field(
        default=512 * MIB, ge=MIB, description="updates kept until their receipt"
    )
    graph_cache_bytes: int = Field(
        default=256 * MIB,
        ge=0,
        description="training graphs, and models that deltas will need, kept for rounds to come",
    )
    optimizer_state_bytes: int = Field(
        default=512 * MIB, ge=0, description="states of optimizers kept between rounds"
    )
    backend: Literal["auto", "onnx", "torch"] = "auto"
    providers: tuple[Provider, ...] = Field(
        default=("cpu",), min_length=1, description="what onnx computes on, best first"
    )
    precision: Precision = Field(
        default="float32", description="what a GPU provider is asked to compute in"
    )
    threads: int = Field(default=1, ge=1, le=256, description="for one training step")
