"""``export``: write a task's newest model to a file, from central's own state."""

import json
from pathlib import Path

import click

from fedfleet import exporting, options

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("task")
@click.option("--onnx", type=_FILE, help="Write an ONNX model for inference.")
@click.option("--safetensors", type=_FILE, help="Write the parameters.")
@click.option(
    "--state-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("state"),
    envvar="FEDFLEET_STATE_DIR",
    show_envvar=True,
    show_default=True,
    help="Central's state directory.",
)
@click.option("--config", type=_FILE, help="Central's TOML file, if it names models or a cache.")
@options.json_output
def export(  # noqa: PLR0913 - one argument an option
    *,
    task: str,
    onnx: Path | None,
    safetensors: Path | None,
    state_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Write the newest model of TASK to files; central may be running meanwhile."""
    wanted: dict[exporting.Kind, Path | None] = {"onnx": onnx, "safetensors": safetensors}
    files = {kind: path for kind, path in wanted.items() if path is not None}
    if not files:
        message = "nothing to write: give --onnx FILE, --safetensors FILE, or both"
        raise click.UsageError(message)
    for kind, path in files.items():
        exporting.export_model(state_dir, task, kind, path, config)
    if as_json:
        click.echo(json.dumps({kind: str(path) for kind, path in files.items()}))
    else:
        for path in files.values():
            click.echo(f"{path} ({path.stat().st_size} bytes)")
