"""``backup``: copy the state of central or of a gateway, which may go on running."""

import json
import time
from pathlib import Path

import click

from fedfleet import options
from fedfleet.backups.programs import BackupError
from fedfleet.backups.taking import take_backup
from fedfleet.screen import Screen


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("state"),
    envvar="FEDFLEET_STATE_DIR",
    show_envvar=True,
    show_default=True,
    help="State directory of central or of a gateway.",
)
@click.option(
    "--to",
    "backup_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the backup goes: a directory that is empty or not there.",
)
@options.json_output
def backup(*, state_dir: Path, backup_dir: Path, as_json: bool) -> None:
    """Copy a state as it is at one moment; nothing has to be stopped."""
    try:
        with Screen() as screen:
            manifest = take_backup(state_dir, backup_dir, time.time(), screen.block)
    except OSError as error:
        message = f"no backup was taken: {error}"
        raise BackupError(message) from error
    if as_json:
        told = manifest.model_dump(exclude={"files", "format"})
        files = len(manifest.files)
        click.echo(
            json.dumps({**told, "to": str(backup_dir), "files": files, "bytes": manifest.size})
        )
    else:
        click.echo(
            f"{backup_dir}: {manifest.program}'s state of {manifest.created}, "
            f"{len(manifest.files)} files, {manifest.size} bytes"
        )
