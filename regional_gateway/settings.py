"""Settings of a regional gateway."""

from pathlib import Path

from pydantic import Field

from schemas.ids import RegionId
from schemas.limits import MIB
from transport.metrics_settings import MetricsSettings
from transport.settings import read_password


class GatewaySettings(MetricsSettings):
    """``broker`` is the region's own; ``uplink`` is the one that central listens on."""

    region: RegionId
    uplink: str | None = Field(default=None, description="central's broker; default: the same")
    uplink_password_file: Path | None = Field(
        default=None, description="as password_file, for the broker that uplink names"
    )
    custody_quota_bytes: int = Field(default=1024 * MIB, ge=MIB)
    cache_bytes: int = Field(default=2048 * MIB, ge=MIB, description="models kept by digest")
    silent_after_s: float = Field(default=108.0, gt=0, description="three missed heartbeats")

    @property
    def uplink_url(self) -> str:
        """The broker towards central."""
        return self.uplink or self.broker

    @property
    def uplink_password(self) -> str | None:
        """The password for the broker towards central; None leaves it to the URL.

        Raises:
            SettingsError: Its file cannot be read or has nothing in its first line.
        """
        if self.uplink is None:
            return self.password
        return read_password("uplink_password_file", self.uplink_password_file)
