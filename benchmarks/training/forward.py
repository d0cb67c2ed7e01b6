"""The forward graphs of the benchmark's models."""

import logging
import warnings

import onnx
import torch

from benchmarks.training.models import Subject

_MAX_BATCH = 65_536


def forward_graph(subject: Subject) -> onnx.ModelProto:
    """Return the model as torch exports it, its parameters as initializers."""
    example = torch.from_numpy(subject.batch(3, seed=0)[0])
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            subject.module().eval(),
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
