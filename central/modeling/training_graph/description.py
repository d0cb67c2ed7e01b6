"""What a training graph costs, in figures that can be read off it."""

import math
from collections import Counter
from dataclasses import dataclass

from central.modeling.training_graph.step import PADDING_KEY, TrainingGraph


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """Figures of one training graph.

    Attributes:
        parameters: Values that travel, running statistics among them.
        constants: Values inside the graph that do not travel with a round: frozen parameters.
        state_size: Values that the optimizer keeps on the device.
        nodes: Number of nodes.
        operators: Operators with how often each occurs, the most frequent first.
        graph_bytes: Size of the serialized graph before compression.
        may_pad: Whether a batch may be filled up with masked examples.
    """

    parameters: int
    constants: int
    state_size: int
    nodes: int
    operators: dict[str, int]
    graph_bytes: int
    may_pad: bool


def describe(graph: TrainingGraph) -> GraphDescription:
    """Return the figures of a training graph."""
    inner = graph.model.graph
    counts = Counter(node.op_type for node in inner.node)
    sizes = [math.prod(tensor.dims) for tensor in inner.initializer]
    properties = {item.key: item.value for item in graph.model.metadata_props}
    return GraphDescription(
        parameters=graph.layout.size,
        constants=sum(sizes),
        state_size=graph.state_size,
        nodes=len(inner.node),
        operators=dict(counts.most_common()),
        graph_bytes=graph.model.ByteSize(),
        may_pad=properties[PADDING_KEY] == "allowed",
    )
