"""Reading of ONNX nodes."""

from collections.abc import Sequence
from typing import TypeVar, cast

import onnx
from onnx import helper

#: Two spellings of the same domain.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

T = TypeVar("T", int, float, str, list[int], list[float], list[str])


def attribute(node: onnx.NodeProto, name: str, default: T) -> T:
    """Return a node's attribute, or the default (of the same type) if it has none."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            if isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, Sequence):
                value = [item.decode() if isinstance(item, bytes) else item for item in value]
            return cast("T", value)
    return default


def has_attribute(node: onnx.NodeProto, name: str) -> bool:
    """Tell whether a node gives an attribute itself."""
    return any(item.name == name for item in node.attribute)


def optional_input(node: onnx.NodeProto, index: int) -> str | None:
    """Return the name of an input, None if it was left out."""
    return (node.input[index] or None) if index < len(node.input) else None


def optional_output(node: onnx.NodeProto, index: int) -> str | None:
    """Return the name of an output, None if it was left out."""
    return (node.output[index] or None) if index < len(node.output) else None
