"""``uninstall``: take one program off a machine."""

import json
from pathlib import Path

import click

from fedfleet import options
from fedfleet.machine_setup import terminal
from fedfleet.machine_setup.layout import PROGRAMS
from fedfleet.machine_setup.machine import Machine
from fedfleet.machine_setup.plan_removal import plan_uninstall


@click.command()
@click.argument("name", type=click.Choice(list(PROGRAMS)))
@click.option("--purge", is_flag=True, help="Remove its settings, passwords and state as well.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="A tree of files instead of this machine.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@options.json_output
def uninstall(*, name: str, purge: bool, root: Path, dry_run: bool, as_json: bool) -> None:
    """Stop a program and remove it; its settings and its state stay unless --purge is given.

    The last program of a machine takes /opt/fedfleet with it.
    """
    program, machine = PROGRAMS[name], Machine(root.resolve())
    actions = plan_uninstall(program, machine.look(), purge=purge)
    if not dry_run and actions:
        machine.check_rights()
        terminal.outlive()
        for action in actions:
            terminal.say(str(action))
            machine.perform(action)
    if as_json:
        done = [str(action) for action in actions]
        click.echo(json.dumps({"name": name, "actions": done, "dry_run": dry_run}))
    elif not actions:
        click.echo(f"{name}: not installed here, nothing was changed")
    elif dry_run:
        click.echo("\n".join(f"would {action}" for action in actions))
    else:
        left = "" if purge else f"; {program.settings} and {program.state} are kept"
        click.echo(f"{name}: removed{left}")
