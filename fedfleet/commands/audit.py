"""``audit``: check the promise on the state directories of a fleet, and say what was counted."""

import json
from pathlib import Path

import click

from fedfleet import auditing, options
from fedfleet.errors import FleetError
from transport.settings import SettingsError

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--state-dir", type=_DIRECTORY, default=Path("state"), envvar="FEDFLEET_STATE_DIR",
              show_envvar=True, show_default=True, help="Central's state directory.")  # fmt: skip
@click.option("--task", help="One task; default all.")
@click.option("--device-state-dir", "device_dirs", type=_DIRECTORY, multiple=True,
              metavar="DIR", help="A device's, to check its receipts; repeatable.")  # fmt: skip
@click.option("--gateway-state-dir", "gateway_dirs", type=_DIRECTORY, multiple=True,
              metavar="DIR", help="A gateway's, likewise; repeatable.")  # fmt: skip
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path),
              help="Central's TOML file, when tasks use strategies of your own.")  # fmt: skip
@options.json_output
def audit(  # noqa: PLR0913 - one argument an option
    *,
    state_dir: Path,
    task: str | None,
    device_dirs: tuple[Path, ...],
    gateway_dirs: tuple[Path, ...],
    config: Path | None,
    as_json: bool,
) -> None:
    """Check that every accepted update counts once, or not at all with a reason.

    Central's tables are read in one snapshot, so all programs may be running. Each committed
    model is aggregated again from the stored updates and compared bit for bit. Exit code 0: the
    promise holds; 1: it does not, and every finding is named.
    """
    from central.adapters.catalog import PluginError, load_strategies  # noqa: PLC0415
    from central.settings import CentralSettings  # noqa: PLC0415

    try:
        strategies = load_strategies(CentralSettings.load(config).strategies)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    except PluginError as error:
        raise FleetError(str(error)) from error
    found = auditing.run_audit(state_dir, strategies, task, device_dirs, gateway_dirs)
    click.echo(json.dumps(auditing.as_object(found)) if as_json else auditing.as_text(found))
    if found.findings:
        raise SystemExit(1)
