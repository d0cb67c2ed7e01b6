"""``parked``: look at the messages that a program set aside, and drop them."""

import json
import time
from pathlib import Path

import click

from fedfleet import options, parking
from fedfleet.tables import size, table
from transport.parking import ParkedRow

COLUMNS = ("number", "last", "tries", "size", "topic", "error")


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("state"),
    envvar="FEDFLEET_STATE_DIR",
    show_envvar=True,
    show_default=True,
    help="State directory of central, of a gateway or of a device.",
)
@click.option("--drop", type=click.IntRange(1), metavar="NUMBER", help="Remove one for good.")
@click.option("--all", "drop_all", is_flag=True, help="Remove all of them for good.")
@options.json_output
def parked(*, state_dir: Path, drop: int | None, drop_all: bool, as_json: bool) -> None:
    """List the messages that a program could not handle three times and has set aside.

    The program may be running meanwhile. A parked message is not handled again: what awaits an
    answer is sent again by its sender.
    """
    if drop is not None and drop_all:
        message = "give --drop NUMBER or --all, not both"
        raise click.UsageError(message)
    if drop is not None or drop_all:
        count = parking.drop(state_dir, drop)
        click.echo(json.dumps({"dropped": count}) if as_json else f"{count} dropped")
        return
    rows = parking.parked_rows(state_dir)
    if as_json:
        click.echo(json.dumps({"parked": [parking.as_object(row) for row in rows]}))
    elif rows:
        click.echo(table(COLUMNS, [_cells(row) for row in rows]))
    else:
        click.echo(f"nothing is parked in {state_dir}", err=True)


def _cells(row: ParkedRow) -> tuple[str, ...]:
    last = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.last_s))
    return (str(row.number), last, str(row.tries), size(row.size), row.topic, row.error)
