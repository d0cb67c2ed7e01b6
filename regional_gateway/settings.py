"""Settings of a regional gateway."""

from pydantic import Field

from schemas.ids import RegionId
from schemas.limits import MIB
from transport.metrics_settings import MetricsSettings


class GatewaySettings(MetricsSettings):
    """``broker`` is the region's own; ``uplink`` is the one that central listens on."""

    region: RegionId
    uplink: str | None = Field(default=None, description="central's broker; default: the same")
    custody_quota_bytes: int = Field(default=1024 * MIB, ge=MIB)
    cache_bytes: int = Field(default=2048 * MIB, ge=MIB, description="models kept by digest")
    silent_after_s: float = Field(default=108.0, gt=0, description="three missed heartbeats")

    @property
    def uplink_url(self) -> str:
        """The broker towards central."""
        return self.uplink or self.broker
