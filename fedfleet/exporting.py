"""Models out of central's state directory, without loading central before it is needed."""

import sqlite3
import time
from pathlib import Path
from typing import Literal, get_args

from fedfleet.errors import FleetError

Kind = Literal["onnx", "safetensors"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_POLL_S = 0.1


class ExportError(FleetError):
    """A model was not written: central's state has none, or the file cannot be written."""


def await_files(state_dir: Path, task: str, model_sha256: str, timeout_s: float) -> bool:
    """Wait for a running central to write out the final model of ``task``.

    Returns:
        Whether it has; ``export_model`` then only copies.
    """
    from central import app  # noqa: PLC0415  (central is large, and most verbs do without)

    until_s = time.monotonic() + timeout_s
    while not app.is_exported(state_dir, task, model_sha256):
        if time.monotonic() >= until_s:
            return False
        time.sleep(_POLL_S)
    return True


def export_model(
    state_dir: Path, task: str, kind: Kind, path: Path, config: Path | None = None
) -> None:
    """Write the newest model of ``task`` to ``path``.

    Args:
        state_dir: Central's state directory; central may be running.
        task: Its id.
        kind: Format of the file.
        path: The file; its folder must exist.
        config: Central's TOML file, if it has one: a model of its own is named there.

    Raises:
        ExportError: There is no such model, or it cannot be written.
    """
    from central import app  # noqa: PLC0415  (central is large, and most verbs do without)
    from central.settings import CentralSettings  # noqa: PLC0415

    try:
        settings = CentralSettings.load(config, state_dir=state_dir)
        app.export(settings, task, kind, path)
    except (app.NothingToExportError, OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        message = f"{task}: no {kind} file was written to {path}: {error}"
        raise ExportError(message) from error
