"""Commands of ``python -m benchmarks.codecs``."""

import json

import click

from benchmarks.codecs import nmse, speed
from benchmarks.codecs.variants import variants
from updates.codecs import names

_CODEC = click.option(
    "--codec", "chosen", multiple=True, type=click.Choice(names()), help="Only this one; repeat."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead.")


@click.group()
def main() -> None:
    """Measure codecs of updates: what they lose, and how fast they are."""


@main.command("nmse")
@_CODEC
@click.option("--values", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True)
@_JSON
def nmse_command(chosen: tuple[str, ...], values: int, seeds: int, *, as_json: bool) -> None:
    """Print the squared error by the energy of the vector, and the bits of a value."""
    figures = nmse.measured(variants(chosen), values, seeds)
    click.echo(json.dumps(nmse.as_objects(figures)) if as_json else nmse.report(figures))


@main.command("speed")
@_CODEC
@click.option(
    "--values", "counts", type=click.IntRange(1), multiple=True, default=(1_000_000, 10_000_000)
)
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@_JSON
def speed_command(
    chosen: tuple[str, ...], counts: tuple[int, ...], repeats: int, *, as_json: bool
) -> None:
    """Print bytes of float32 a second: encoding, and decoding into a sum."""
    figures = [
        speed.measured(variant, count, repeats) for count in counts for variant in variants(chosen)
    ]
    click.echo(json.dumps(speed.as_objects(figures)) if as_json else speed.report(figures))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.codecs")
