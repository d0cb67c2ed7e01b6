"""The command ``fedfleet device``."""

from pathlib import Path

import click

from device_agent.settings import DeviceSettings
from transport.failpoints import FailpointError
from transport.settings import SettingsError


@click.command()
@click.option("--region", help="Region whose gateway serves this device.")
@click.option("--id", help="Its id, unique in the fleet; auto: drawn once, kept.")
@click.option("--broker", metavar="URL", help="mqtt[s]://[user:password@]host[:port].")
@click.option(
    "--data",
    multiple=True,
    metavar="SOURCE",
    help="Examples to train on: digits, mnist=DIR, npz=FILE, ...; repeatable.",
)
@click.option("--shard", metavar="I/N", help="Take the I-th of N shards of each source.")
@click.option(
    "--sample",
    type=int,
    metavar="N",
    help="Draw N examples of each source, by the device's id; where nobody counts the devices.",
)
@click.option(
    "--alpha", type=float, help="Unequal shards or samples, Dirichlet(alpha); default: equal ones."
)
@click.option("--split-seed", type=int, help="Seed of the split; the same on every device.")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Database and objects of this device."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="TOML file with the owner's limits, which central cannot override.",
)
@click.option(
    "--profile",
    metavar="NAME",
    help="Firmware profile: a name, FILE.yaml, or auto, the default, which detects it.",
)
@click.option(
    "--metered",
    type=click.Choice(["auto", "yes", "no"]),
    help="Whether its link is paid by the byte; default auto: yes behind a modem.",
)
@click.option(
    "--mem-ballast-mb",
    type=int,
    help="MiB of memory to take for nothing, so that a test machine is as full as a small device.",
)
@click.option(
    "--mqtt-protocol", type=click.Choice(["auto", "5", "3.1.1"]), help="Version of MQTT."
)
@click.option(
    "--outbox-quota-bytes", type=int, help="Most bytes of updates kept until their receipt."
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnx", "torch"]),
    help="What it trains with; default auto: onnx where it is installed, then torch.",
)
@click.option(
    "--provider",
    "providers",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    multiple=True,
    help="What onnx computes on, best first; repeatable; default: the profile's.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    help="What a GPU is asked to compute in; default: the profile's. Parameters stay float32.",
)
@click.option(
    "--threads",
    type=int,
    help="Threads of one training step; default: the profile's, never above its limit.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file; flags and FEDFLEET_* in the environment come first.",
)
def device(config: Path | None, **flags: object) -> None:
    """Run one device agent: it keeps its data and sends what it learned from it."""
    try:
        repeated = {name: flags[name] or None for name in ("data", "providers")}
        settings = DeviceSettings.load(config, **{**flags, **repeated})
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    from device_agent import app  # noqa: PLC0415 - numpy and paho only once they are needed

    try:
        code = app.run(settings)
    except FailpointError as error:
        raise click.UsageError(str(error)) from error
    except (OSError, ValueError, *app.StartError) as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(code)
