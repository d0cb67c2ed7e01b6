"""The command ``fedfleet central``."""

from pathlib import Path

import click

from central.settings import CentralSettings
from transport.failpoints import FailpointError
from transport.settings import SettingsError


@click.command()
@click.option("--broker", help="The broker that gateways reach, mqtt[s]://[user:pw@]host[:port].")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Database, models, updates.")
@click.option("--min-clients", type=int, help="For tasks that do not say; or MIN_CLIENTS.")
@click.option(
    "--eval-data", multiple=True, help="Held-out data to measure each model on; repeatable."
)
@click.option("--prepare-timeout-s", type=float, help="How long building a model may take; 900.")
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
def central(  # noqa: PLR0913, PLR0917 - one argument an option
    broker: str | None,
    state_dir: Path | None,
    min_clients: int | None,
    eval_data: tuple[str, ...],
    prepare_timeout_s: float | None,
    mqtt_protocol: str | None,
    keepalive_s: int | None,
    metrics_port: int | None,
    metrics_host: str | None,
    metrics_device_labels: bool | None,  # noqa: FBT001 - click's
    config: Path | None,
) -> None:
    """Run central: it takes tasks, selects clients, aggregates and keeps the models."""
    try:
        settings = CentralSettings.load(
            config,
            broker=broker,
            state_dir=state_dir,
            min_clients=min_clients,
            eval_data=eval_data or None,
            prepare_timeout_s=prepare_timeout_s,
            mqtt_protocol=mqtt_protocol,
            keepalive_s=keepalive_s,
            metrics_port=metrics_port,
            metrics_host=metrics_host,
            metrics_device_labels=metrics_device_labels,
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    from central import app  # noqa: PLC0415 - numpy and the store only once they are needed

    try:
        code = app.run(settings)
    except FailpointError as error:
        raise click.UsageError(str(error)) from error
    except (OSError, ValueError, *app.StartError) as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(code)
