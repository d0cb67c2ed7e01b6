"""The table of all codecs: ``python -m benchmarks.compression.catalogue --docs`` writes it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import click
import numpy as np

from benchmarks.training.pages import markdown_table, put_section
from fedfleet.tables import table
from updates.codecs import Codec, create, names
from updates.layout import Layout

PAGE, SECTION = Path("docs", "compression.md"), "codecs"
COLUMNS = ("codec", "number", "bits a value", "rounding", "biased", "error feedback", "defaults")
#: A convolution, its bias, a dense layer, its bias.
LAYOUT = Layout.of({"a": (16, 6, 5, 5), "b": (16,), "c": (120, 400), "d": (120,)})


def bits_a_value(codec: Codec) -> float:
    """Return the size of one payload of normal values, header included, by their number."""
    rng = np.random.default_rng(1)
    vector = rng.standard_normal(LAYOUT.size, dtype=np.float32)
    return 8 * len(codec.encode(vector, LAYOUT, rng)) / LAYOUT.size


def row(codec: Codec) -> tuple[str, ...]:
    """Return what a codec says of itself."""
    return (
        f"`{codec.codec_id}`",
        f"{codec.number}",
        f"{bits_a_value(codec):.2f}",
        "random" if codec.is_random else "fixed",
        "yes" if codec.is_biased else "no",
        codec.feedback,
        ", ".join(f"`{one.name}={getattr(codec, one.name)}`" for one in fields(codec)) or "-",
    )


def rows() -> Sequence[tuple[str, ...]]:
    """Return one row a codec of the registry, with its defaults, by number."""
    codecs = sorted(map(create, names()), key=lambda codec: codec.number)
    return [row(codec) for codec in codecs]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--docs", is_flag=True, help=f"Write the table into {PAGE}.")
def main(as_json: bool, docs: bool) -> None:  # noqa: FBT001
    """List the codecs of the registry."""
    found = rows()
    if as_json:
        told = {name: {"params": asdict(create(name))} for name in names()}
        for cells in found:
            told[cells[0].strip("`")] |= dict(zip(COLUMNS[1:-1], cells[1:-1], strict=True))
        print(json.dumps(told))
    else:
        print(table(COLUMNS, found))
    if docs:
        put_section(PAGE, SECTION, markdown_table(COLUMNS, found))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.compression.catalogue")
