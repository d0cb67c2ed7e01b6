"""``upgrade``: bring another version into use, with a way back."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from fedfleet import options
from fedfleet.machine_setup import terminal
from fedfleet.machine_setup.layout import PROGRAMS
from fedfleet.machine_setup.machine import Machine
from fedfleet.machine_setup.service import Service
from fedfleet.machine_setup.upgrading import Outcome, Upgrade, UpgradeFailedError
from fedfleet.machine_setup.wheels import find_source


@click.command()
@click.argument("name", type=click.Choice(list(PROGRAMS)))
@click.option("--wheel", type=click.Path(path_type=Path, dir_okay=False), help="The new version.")
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of all wheels that it needs; no network is used then.",
)
@click.option("--version", help="The new version, from pip's index or the folder.")
@click.option(
    "--wait-s",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    help="How long it may take to become healthy.",
)
@options.json_output
def upgrade(  # noqa: PLR0913 - one argument an option
    *,
    name: str,
    wheel: Path | None,
    folder: Path | None,
    version: str | None,
    wait_s: float,
    as_json: bool,
) -> None:
    """Install a version beside the present one and switch to it.

    If the program is not healthy in time (its broker must answer), the version before is put back
    and the exit code is 1; its database too, if the new version has brought that up to date.
    """
    if wheel is None and folder is None and version is None:
        message = "give --version, --wheel or --from"
        raise click.UsageError(message)
    program, machine = PROGRAMS[name], Machine()
    source = find_source(wheel, folder, version)
    machine.check_rights()
    terminal.outlive()
    service = Service(program, machine)
    try:
        outcome = Upgrade(program, machine, service, wait_s, terminal.say).to(source)
    except UpgradeFailedError as error:
        if as_json:
            click.echo(json.dumps(asdict(error.outcome)))
        raise
    click.echo(json.dumps(asdict(outcome)) if as_json else _sentence(name, outcome))


def _sentence(name: str, outcome: Outcome) -> str:
    if outcome.previous == outcome.current:
        return f"{name}: version {outcome.current} is in use already, nothing was changed"
    return f"{name}: {outcome.previous} -> {outcome.current}, healthy"
