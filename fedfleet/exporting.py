"""Models out of central's state directory, without loading central before it is needed."""

import sqlite3
from pathlib import Path
from typing import Literal, get_args

from fedfleet.errors import FleetError

Kind = Literal["onnx", "safetensors"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class ExportError(FleetError):
    """A model was not written: central's state has none, or the file cannot be written."""


def export_model(state_dir: Path, task: str, kind: Kind, path: Path) -> None:
    """Write the newest model of ``task`` to ``path``.

    Args:
        state_dir: Central's state directory; central may be running.
        task: Its id.
        kind: Format of the file.
        path: The file; its folder must exist.

    Raises:
        ExportError: There is no such model, or it cannot be written.
    """
    from central import app  # noqa: PLC0415  (central is large, and most verbs do without)

    try:
        app.export(state_dir, task, kind, path)
    except (app.NothingToExportError, OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        message = f"{task}: no {kind} file was written to {path}: {error}"
        raise ExportError(message) from error
