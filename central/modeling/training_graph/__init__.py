"""From a forward ONNX graph to one that computes a whole training step in standard operators."""

from central.modeling.training_graph.description import GraphDescription, describe
from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.spec import StepSpec
from central.modeling.training_graph.step import (
    PADDING_KEY,
    TrainingGraph,
    build_training_graph,
)

__all__ = [
    "PADDING_KEY",
    "GraphDescription",
    "StepSpec",
    "TrainingGraph",
    "UnsupportedModelError",
    "build_training_graph",
    "describe",
]
