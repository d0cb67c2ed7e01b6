"""Export of a trained model as ONNX, checked before it gets its name.

Uses torch's exporter (``dynamo=True``) at opset 18, which onnxruntime runs since 1.14. The first
axis of input and output is free.
"""

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

OPSET = 18
#: Largest difference between torch and onnxruntime, relative to the largest logit (at least 1).
TOLERANCE = 1e-4

#: Warns at every export that torchvision is not installed; it is not needed.
_TALKATIVE = "torch.onnx._internal.exporter._registration"
_MAX_BATCH = 65_536
_CHECKED_BATCHES = (1, 3)


class ExportError(RuntimeError):
    """A model cannot be exported, or the exported one computes something else."""


def export_onnx(module: "nn.Module", input_shape: tuple[int, ...], path: Path) -> Path:
    """Write ``module`` to ``path``: ``input`` ``(batch, *input_shape)`` to ``logits``.

    The file replaces an older one only after the checker accepted it and onnxruntime gave what
    torch gives, on inputs of two batch sizes.

    Args:
        module: Its mode (training or evaluation) is left as it was.
        input_shape: Shape of one example.
        path: Where to write; its directory must exist.

    Returns:
        ``path``.

    Raises:
        ExportError: torch cannot export the model, or the outputs differ.
        OSError: The file cannot be written.
    """
    training = module.training
    for leftover in path.parent.glob(f".{path.name}.*.draft"):
        leftover.unlink(missing_ok=True)  # of a process that was killed
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        module.eval()
        _write(module, input_shape, draft)
        _check(module, input_shape, draft)
        draft.replace(path)
    finally:
        module.train(training)
        draft.unlink(missing_ok=True)
    return path


def _write(module: "nn.Module", input_shape: tuple[int, ...], path: Path) -> None:
    import torch  # noqa: PLC0415

    logging.getLogger(_TALKATIVE).setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    try:
        with warnings.catch_warnings():
            # torch 2.13 deprecates what its own exporter still calls.
            warnings.simplefilter("ignore", FutureWarning)
            torch.onnx.export(
                module,
                (torch.zeros(2, *input_shape),),
                path,
                dynamo=True,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        message = f"export: {error}"
        raise ExportError(message) from error


def _check(module: "nn.Module", input_shape: tuple[int, ...], path: Path) -> None:
    import onnx  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415
    import torch  # noqa: PLC0415

    try:
        onnx.checker.check_model(path, full_check=True)
    except onnx.checker.ValidationError as error:
        message = f"export: {error}"
        raise ExportError(message) from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for size in _CHECKED_BATCHES:
        x = rng.standard_normal((size, *input_shape), dtype=np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(x)).numpy()
        (got,) = session.run(["logits"], {"input": x})
        difference = float(np.abs(got - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            message = f"export: outputs differ by {difference}, at most {TOLERANCE} is allowed"
            raise ExportError(message)
