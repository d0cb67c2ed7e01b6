"""The forward graphs of the benchmark's models, some of which take tokens."""

import copy
import logging
import warnings

import onnx
import torch
from torch import nn

from benchmarks.training.models import Subject

_MAX_BATCH = 65_536


def forward_graph(subject: Subject) -> onnx.ModelProto:
    """Return the model as torch exports it, its parameters as initializers."""
    return exported(subject.module(), torch.from_numpy(subject.batch(3, seed=0)[0]))


def exported(module: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    """Return the forward graph of a module, which stays as it was; parameters keep their names.

    Args:
        module: Maps a batch to logits.
        example: A batch of at least two, of any element type.
    """
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            copy.deepcopy(module).eval(),
            (example,),
            dynamo=True,
            optimize=False,
            opset_version=18,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
    return program.model_proto
