"""Dropout in training mode: onnxruntime's inference builds have it, masks and all.

A forward graph holds dropout as evaluation needs it, which passes its input on. Where a gradient
passes, the training graph drops. The masks come from one generator of the process, which
``onnxruntime.set_seed`` starts anew: call it before the session is made. The generator counts its
draws up from the seed, so seeds that are close to each other give the same masks a little later;
take seeds that are far apart, such as digests.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15, 2014, in the inverted form of the ONNX standard.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.nodes import optional_input, optional_output
from central.modeling.training_graph.rules.registry import Gradient, forward, rule
from central.modeling.training_graph.terms import Term

_RATIO = 0.5


@forward("Dropout")
def _dropping(builder: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    """Turn training mode on and ask for the mask; the seed is the process's, not the node's."""
    ratio = builder.constant(_ratio(builder, node), np.float32)
    outputs = [node.output[0], optional_output(node, 1) or builder.fresh("mask")]
    inputs = (node.input[0], ratio, builder.constant(value=True, dtype=np.bool_))
    builder.emit_many("Dropout", *inputs, outputs=outputs)
    return builder.nodes[-1]


@rule("Dropout")
def _dropout(
    builder: GraphBuilder, node: onnx.NodeProto, outer: Sequence[str | None]
) -> Sequence[Gradient]:
    g = Term(builder, outer[0] or "", node.input[0])
    mask = Term(builder, node.output[1], node.input[0])
    return [(g.only(mask) * (1 / (1 - _ratio(builder, node)))).name]


def _ratio(builder: GraphBuilder, node: onnx.NodeProto) -> float:
    name = optional_input(node, 1)
    return _RATIO if name is None else float(builder.value(name, "the ratio of Dropout"))
