"""How the windows of a convolution or a pool lie on the larger of its two tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import onnx
from onnx import helper

from central.modeling.training_graph.builder import GraphBuilder
from central.modeling.training_graph.nodes import attribute, has_attribute

_DROPPED = frozenset({"auto_pad", "pads", "kernel_shape", "output_shape", "output_padding"})


@dataclass(frozen=True, slots=True)
class Windows:
    """Sizes along each spatial axis, outermost first.

    The wide tensor is the input of a convolution or a pool and the output of a transposed
    convolution; the narrow tensor has one position per window.

    Attributes:
        kernel: Positions in a window.
        strides: From one window to the next.
        dilations: From one position of a window to the next.
        before: Padding in front of the wide tensor.
        after: Padding behind it, as the node has it.
        wide: Size of the wide tensor.
        narrow: Number of windows.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    wide: tuple[int, ...]
    narrow: tuple[int, ...]

    @property
    def axes(self) -> range:
        """The spatial axes of both tensors."""
        return range(2, 2 + len(self.kernel))

    @property
    def reach(self) -> tuple[int, ...]:
        """What one window spans, with the gaps of its dilation."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple((size - 1) * step + 1 for size, step in pairs)

    @property
    def span(self) -> tuple[int, ...]:
        """From the first window's begin to the last one's end."""
        triples = zip(self.narrow, self.strides, self.reach, strict=True)
        return tuple((count - 1) * step + reach for count, step, reach in triples)

    @property
    def needed_after(self) -> tuple[int, ...]:
        """Padding behind the wide tensor with which it ends where the last window ends.

        Negative where the windows do not reach the end of the wide tensor.
        """
        triples = zip(self.span, self.before, self.wide, strict=True)
        return tuple(span - before - size for span, before, size in triples)

    @property
    def surplus(self) -> tuple[int, ...]:
        """Positions of the padded wide tensor behind the last window; negative if it hangs over.

        As the ``output_padding`` of a transposed convolution it leads back to the wide size.
        """
        pairs = zip(self.after, self.needed_after, strict=True)
        return tuple(after - needed for after, needed in pairs)

    @property
    def disjoint(self) -> bool:
        """No position lies in two windows."""
        pairs = zip(self.strides, self.reach, strict=True)
        return all(step >= reach for step, reach in pairs)

    @property
    def covers(self) -> bool:
        """The windows are the wide tensor's positions themselves, one each."""
        return self.wide == self.narrow and not any(
            (*self.before, *self.after, *(size - 1 for size in self.kernel))
        )

    def positions(self) -> list[tuple[int, ...]]:
        """Every position in a window, in the order of the kernel."""
        return list(product(*map(range, self.kernel)))


def windows(
    builder: GraphBuilder, node: onnx.NodeProto, wide: str, narrow: str, kernel: Sequence[int]
) -> Windows:
    """Return the windows of a Conv, ConvTranspose or pool node, its ``auto_pad`` resolved.

    Raises:
        UnsupportedModelError: A spatial size follows the batch.
    """
    rank = len(kernel)
    ones = [1] * rank
    axes = range(2, 2 + rank)
    unpadded = Windows(
        tuple(kernel),
        tuple(attribute(node, "strides", ones)),
        tuple(attribute(node, "dilations", ones)),
        (0,) * rank,
        (0,) * rank,
        tuple(builder.static(wide, axes)),
        tuple(builder.static(narrow, axes)),
    )
    before, after = _pads(node, unpadded)
    return replace(unpadded, before=before, after=after)


def state_pads(node: onnx.NodeProto, shape: Windows) -> None:
    """Write the resolved geometry into a Conv or ConvTranspose node.

    What ``auto_pad`` and ``output_shape`` mean has differed between runtimes.
    """
    kept = [item for item in node.attribute if item.name not in _DROPPED]
    node.ClearField("attribute")
    node.attribute.extend(kept)
    stated: dict[str, tuple[int, ...]] = {
        "kernel_shape": shape.kernel,
        "pads": (*shape.before, *shape.after),
    }
    if node.op_type == "ConvTranspose":
        stated["output_padding"] = shape.surplus
    node.attribute.extend(helper.make_attribute(key, value) for key, value in stated.items())


def _pads(node: onnx.NodeProto, unpadded: Windows) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding in front of the wide tensor and behind it."""
    rank = len(unpadded.kernel)
    automatic = attribute(node, "auto_pad", "NOTSET")
    if automatic == "VALID":
        return unpadded.before, unpadded.after
    if automatic == "NOTSET" and not has_attribute(node, "output_shape"):
        pads = attribute(node, "pads", [0] * (2 * rank))
        return tuple(pads[:rank]), tuple(pads[rank:])
    extra = attribute(node, "output_padding", [0] * rank)
    totals = [
        max(needed + more, 0) for needed, more in zip(unpadded.needed_after, extra, strict=True)
    ]
    smaller = tuple(total // 2 for total in totals)
    larger = tuple(total - total // 2 for total in totals)
    return (smaller, larger) if automatic == "SAME_UPPER" else (larger, smaller)
