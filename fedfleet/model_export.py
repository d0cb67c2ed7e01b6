"""A model as an .onnx file, before any training: to look at, to change, to train elsewhere."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fedfleet.errors import FleetError

if TYPE_CHECKING:
    from central.modeling.requests import ModelRequest


class ModelExportError(FleetError):
    """The model was refused or could not be written."""


def export_model(request: "ModelRequest", path: Path, runtime: str | None = None) -> None:
    """Write the model with its first parameters to ``path``.

    Args:
        request: Which model.
        path: The file; its folder must exist.
        runtime: Oldest version of onnxruntime that must load it, such as ``1.12``.

    Raises:
        ModelExportError: The model was refused, or the file cannot be written.
    """
    from central.modeling import process  # noqa: PLC0415 - only where a model is looked at
    from central.modeling.export import (  # noqa: PLC0415 - imports onnx
        ExportError,
        export_for,
        inference_model,
    )
    from central.modeling.forward import ForwardGraph  # noqa: PLC0415
    from central.modeling.forward_store import ForwardStore  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        cache, scratch = Path(folder, "cache"), Path(folder, "scratch")
        scratch.mkdir()
        try:
            outcome = process.prepare(request, None, cache=cache, scratch=scratch)
            stored = ForwardStore(cache).need(outcome.key)
            model = inference_model(ForwardGraph.load(stored))
            made = export_for(model, runtime) if runtime else model
            path.write_bytes(made.SerializeToString(deterministic=True))
        except (process.PrepareProcessError, ExportError, ValueError, OSError) as error:
            message = f"{path} was not written: {error}"
            raise ModelExportError(message) from error
