"""``failpoints``: the places where a test may kill a program, or fill its disk."""

import json

import click

from fedfleet import options
from fedfleet.tables import table
from transport.failpoint_catalogue import PROGRAMS, Place, catalogue
from transport.failpoints import ACTIONS, VARIABLE

COLUMNS = ("failpoint", "programs", "what is durable there")
_HOW = f"Arm one: {VARIABLE}=NAME:NTH:ACTION, the action one of {', '.join(ACTIONS)}."


@click.command(epilog=_HOW)
@click.option("--program", type=click.Choice(PROGRAMS), help="Only those that it comes by.")
@options.json_output
def failpoints(*, program: str | None, as_json: bool) -> None:
    """List the failpoints, and what is or is not yet durable at each."""
    places = [place for place in catalogue() if program is None or program in place.programs]
    if as_json:
        click.echo(json.dumps([_object(place) for place in places]))
        return
    rows = [(place.name, " ".join(place.programs), place.edge) for place in places]
    click.echo(table(COLUMNS, rows))


def _object(place: Place) -> dict[str, object]:
    return {"name": place.name, "programs": list(place.programs), "edge": place.edge}
