"""``restore``: put a backup of central or of a gateway back."""

import json
import time
from pathlib import Path

import click

from fedfleet import options
from fedfleet.backups.programs import BackupError
from fedfleet.backups.restoring import restore_backup
from fedfleet.screen import Screen


@click.command()
@click.option(
    "--from",
    "backup_dir",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="What `fedfleet backup` wrote.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("state"),
    envvar="FEDFLEET_STATE_DIR",
    show_envvar=True,
    show_default=True,
    help="Where the program will look for its state; it must not run.",
)
@click.option("--replace", is_flag=True, help="Move a state that is there aside.")
@options.json_output
def restore(*, backup_dir: Path, state_dir: Path, replace: bool, as_json: bool) -> None:
    """Check a backup, file by file, and make it the state to start from."""
    try:
        with Screen() as screen:
            done = restore_backup(
                backup_dir, state_dir, time.time(), screen.block, replace=replace
            )
    except OSError as error:
        message = f"the restore failed: {error}"
        raise BackupError(message) from error
    manifest = done.manifest
    if as_json:
        told = manifest.model_dump(exclude={"files", "format"})
        aside = None if done.replaced is None else str(done.replaced)
        click.echo(json.dumps({**told, "state_dir": str(state_dir), "replaced": aside}))
        return
    click.echo(f"{state_dir}: {manifest.program}'s state of {manifest.created} is in place")
    if done.replaced is not None:
        click.echo(f"what was there is in {done.replaced}")
