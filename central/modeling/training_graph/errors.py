"""Why a model cannot be trained as an ONNX graph, in words that its owner can act on."""

import onnx

#: What helps against most refusals.
USUAL_ADVICE = (
    "freeze the parameters in front of it, replace the operator and export again at opset 18, "
    "or set requires.backend to torch"
)


class UnsupportedModelError(ValueError):
    """A model, or one node of it, has no training graph.

    Args:
        reason: What is in the way.
        advice: What its owner can do.
        node: Name of the node, or of its first output; empty while it is not known.
        operator: Its operator, with the domain if that is not the standard one.
    """

    def __init__(
        self, reason: str, advice: str = USUAL_ADVICE, *, node: str = "", operator: str = ""
    ) -> None:
        where = f"node {node!r} ({operator}): " if node or operator else ""
        super().__init__(f"{where}{reason}; {advice}")
        self.reason = reason
        self.advice = advice
        self.node = node
        self.operator = operator

    def at(self, node: onnx.NodeProto) -> "UnsupportedModelError":
        """Return this error with the node named, unless a node is named already."""
        if self.node or self.operator:
            return self
        return UnsupportedModelError(
            self.reason, self.advice, node=node_name(node), operator=operator_name(node)
        )


def node_name(node: onnx.NodeProto) -> str:
    """Return what a person finds the node by: its name, or its first output's."""
    return node.name or next((name for name in node.output if name), "")


def operator_name(node: onnx.NodeProto) -> str:
    """Return the operator, with its domain if that is not the standard one."""
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"
