"""Settings of the programs that tell Prometheus how they are: central and the gateways."""

from pydantic import Field

from transport.settings import ConnectionSettings


class MetricsSettings(ConnectionSettings):
    """Without ``metrics_port`` nothing is counted, listens or is imported."""

    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="serve http://HOST:PORT/metrics; default: off"
    )
    metrics_host: str = Field(default="127.0.0.1", description="address to listen on")
    metrics_device_labels: bool = Field(
        default=False, description="also one series a device; its id becomes a label"
    )
