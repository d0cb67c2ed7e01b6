"""``health``: say whether the program on a state directory is ready, for probes of all kinds."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from fedfleet.errors import FleetError
from transport.health_file import HealthError, problem, read_health


class NotReadyError(FleetError):
    """The program is not ready."""


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("state"),
    envvar="FEDFLEET_STATE_DIR",
    show_envvar=True,
    show_default=True,
    help="State directory of central, of a gateway or of a device.",
)
@click.option(
    "--max-age-s",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Oldest word of the program that counts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def health(*, state_dir: Path, max_age_s: float, as_json: bool) -> None:
    """Exit with 0 when the program that runs on a state directory is ready, else with 1.

    Ready means that its work loop turns and that all of its sessions are connected.
    """
    try:
        found = read_health(state_dir)
    except HealthError as error:
        raise NotReadyError(str(error)) from error
    wrong = problem(found, time.time(), max_age_s)
    if as_json:
        click.echo(json.dumps({**asdict(found), "problem": wrong}))
    if wrong is not None:
        raise NotReadyError(wrong)
    if not as_json:
        click.echo(f"ready; sessions connected: {', '.join(found.connected)}")
