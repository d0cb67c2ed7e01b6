"""Forward graphs of torch modules, by torch's exporter (``dynamo=True``).

``optimize=False`` keeps the names of ``state_dict`` and folds no weight into another. Batch
normalization is exported in evaluation mode, so that it stays one node; dropout in training mode,
if there is any. Import it only in a process of its own: torch's exporter takes several times the
model's memory and keeps what it imported.
"""

import logging
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from central.modeling.forward import (
    BATCH,
    OPSET,
    ForwardGraph,
    share_training_mode,
    tidied,
)
from central.modeling.running import INPUT, LOGITS
from central.modeling.trial import check_against
from learning.models import parameters
from learning.models.architectures import ModelError, Shape

F32 = NDArray[np.float32]

#: Warns at every export that torchvision is not installed; it is not needed.
_TALKATIVE = "torch.onnx._internal.exporter._registration"
_MAX_BATCH = 65_536
_STATISTICS = ("running_mean", "running_var")


def forward_graph(module: nn.Module, input_shape: Shape) -> ForwardGraph:
    """Return the forward graph of ``module``; its mode is left changed.

    Args:
        module: Maps ``(batch, *input_shape)`` to logits ``(batch, classes)``.
        input_shape: Shape of one example.

    Raises:
        ModelError: torch cannot export it, or a parameter is not float32.
    """
    drops_out = _set_mode(module)
    model = tidied(_exported(module, input_shape))
    if drops_out:
        share_training_mode(model, every=True)
    values = parameters.read(module)
    reached = {tensor.name for tensor in model.graph.initializer}
    for name in sorted(values.keys() - reached):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values[name]), name))
    fixed = _fixed(module, values.keys() & reached)
    forward = ForwardGraph(model, tuple(sorted(values)), fixed)
    check_against(forward, _evaluated(module), input_shape)
    return forward


def _set_mode(module: nn.Module) -> bool:
    """Set the mode to export in and tell whether the module drops anything out."""
    drops_out = any(_drop_probability(part) > 0 for part in module.modules())
    module.train(drops_out)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase):  # noqa: SLF001 - all that keep statistics
            part.eval()
    return drops_out


def _drop_probability(part: nn.Module) -> float:
    if isinstance(part, nn.modules.dropout._DropoutNd):  # noqa: SLF001 - their common base
        return float(part.p)
    inner = getattr(part, "dropout", 0.0)  # of attention and of recurrent layers
    return float(inner) if isinstance(inner, (int, float)) else 0.0


def _exported(module: nn.Module, input_shape: Shape) -> onnx.ModelProto:
    logging.getLogger(_TALKATIVE).setLevel(logging.ERROR)
    batch = torch.export.Dim(BATCH, min=1, max=_MAX_BATCH)
    try:
        with warnings.catch_warnings():
            # torch 2.13 deprecates what its own exporter still calls.
            warnings.simplefilter("ignore", FutureWarning)
            # Dropout is wanted as it is while training.
            warnings.filterwarnings("ignore", "Exporting a model while it is in training mode")
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *input_shape),),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[LOGITS],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        message = f"model: torch cannot export it: {error}"
        raise ModelError(message) from error
    if program is None:
        message = "model: torch's exporter gave nothing"
        raise ModelError(message)
    model: onnx.ModelProto = program.model_proto
    return model


def _evaluated(module: nn.Module) -> Callable[[F32], F32]:
    module.eval()

    def logits(x: F32) -> F32:
        with torch.inference_mode():
            found: F32 = module(torch.from_numpy(x)).numpy()
        return found

    return logits


def _fixed(module: nn.Module, reached: "set[str]") -> tuple[str, ...]:
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    every = {name for name, _ in parameters.shapes_of(module).items()}
    statistics = {name for name in every if name.rpartition(".")[2] in _STATISTICS}
    return tuple(sorted(every - (trained & reached) - (statistics & reached)))
