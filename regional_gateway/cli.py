"""The command ``fedfleet gateway``."""

from pathlib import Path

import click

from regional_gateway.settings import GatewaySettings
from transport.failpoints import FailpointError
from transport.settings import SettingsError


@click.command()
@click.option("--region", help="The region that it serves, an id.")
@click.option("--broker", help="The region's broker, mqtt[s]://[user:pw@]host[:port].")
@click.option("--uplink", help="The broker that central listens on; default: the region's.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Database, models, updates.")
@click.option("--custody-quota-bytes", type=int, help="Most bytes of updates kept for central.")
@click.option("--mqtt-protocol", type=click.Choice(["auto", "5", "3.1.1"]))
@click.option("--keepalive-s", type=int, help="MQTT keep alive.")
@click.option("--metrics-port", type=int, help="Tell Prometheus at this port, /metrics; off.")
@click.option("--metrics-host", help="Address for --metrics-port; 127.0.0.1.")
@click.option(
    "--metrics-device-labels/--no-metrics-device-labels",
    default=None,
    help="Also one series a device; off.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file; flags and FEDFLEET_* in the environment come first.",
)
def gateway(  # noqa: PLR0913, PLR0917 - one argument an option
    region: str | None,
    broker: str | None,
    uplink: str | None,
    state_dir: Path | None,
    custody_quota_bytes: int | None,
    mqtt_protocol: str | None,
    keepalive_s: int | None,
    metrics_port: int | None,
    metrics_host: str | None,
    metrics_device_labels: bool | None,  # noqa: FBT001 - click's
    config: Path | None,
) -> None:
    """Run one regional gateway: it serves a region's devices and speaks to central for them."""
    try:
        settings = GatewaySettings.load(
            config,
            region=region,
            broker=broker,
            uplink=uplink,
            state_dir=state_dir,
            custody_quota_bytes=custody_quota_bytes,
            mqtt_protocol=mqtt_protocol,
            keepalive_s=keepalive_s,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            metrics_device_labels=metrics_device_labels,
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    from regional_gateway import app  # noqa: PLC0415 - numpy only once it is needed

    try:
        code = app.run(settings)
    except FailpointError as error:
        raise click.UsageError(str(error)) from error
    except (OSError, ValueError, *app.StartError) as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(code)
