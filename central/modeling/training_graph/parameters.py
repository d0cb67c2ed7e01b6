"""Which initializers of a forward graph are its parameters, and which of them are trained."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx
from onnx import numpy_helper

from central.modeling.training_graph.errors import UnsupportedModelError
from central.modeling.training_graph.spec import StepSpec
from updates.arrays import F32

#: Inputs that are settings of an operator, whatever their type; all others may be parameters.
_SETTINGS = {
    "Clip": (1, 2),
    "Dropout": (1, 2),
    "OneHot": (1, 2),
    "Pad": (1, 2, 3),
    "Pow": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
}
_STATISTICS = (3, 4)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """What of a forward graph travels, by name; everything else in it is constant.

    Attributes:
        trainable: Values that the optimizer moves, sorted by name.
        statistics: Running means and variances of batch normalization that the step updates.
    """

    trainable: dict[str, F32]
    statistics: dict[str, F32]

    @property
    def travelling(self) -> dict[str, F32]:
        """Both together."""
        return {**self.trainable, **self.statistics}


def find_parameters(forward: onnx.ModelProto, spec: StepSpec) -> Parameters:
    """Sort the initializers of a forward graph.

    A float32 initializer is a parameter if some node uses it as more than a setting (such as the
    bounds of Clip). Those that match ``spec.frozen`` stay constants.

    Raises:
        UnsupportedModelError: Nothing is left to train, or a pattern matches nothing.
    """
    settings, statistics = _other_uses(forward.graph)
    floats = [t for t in forward.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    _check_patterns([tensor.name for tensor in floats], spec)
    found = {tensor.name: tensor for tensor in floats if tensor.name not in settings}
    free = {
        name: numpy_helper.to_array(found[name]).astype(np.float32, copy=False)
        for name in sorted(found)
        if not spec.is_frozen(name)
    }
    trainable = {name: value for name, value in free.items() if name not in statistics}
    if not trainable:
        reason = f"none of its {len(found)} float32 initializers is left to train"
        raise UnsupportedModelError(reason, "freeze less; parameters must be initializers")
    return Parameters(trainable, {name: free[name] for name in free if name in statistics})


def _other_uses(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Return the names that are only settings or unused, and those that are statistics."""
    settings: set[str] = {tensor.name for tensor in graph.initializer}
    statistics: set[str] = set()
    for operator, position, name in _uses(graph):
        if operator == "BatchNormalization" and position in _STATISTICS:
            statistics.add(name)
            settings.discard(name)
        elif position not in _SETTINGS.get(operator, ()):
            settings.discard(name)
    return settings, statistics


def _uses(graph: onnx.GraphProto) -> Iterator[tuple[str, int, str]]:
    for node in graph.node:
        for position, name in enumerate(node.input):
            yield node.op_type, position, name


def _check_patterns(found: list[str], spec: StepSpec) -> None:
    for pattern in spec.frozen:
        if not any(fnmatchcase(name, pattern) for name in found):
            shown = ", ".join(found[:_SHOWN])
            reason = f"frozen: {pattern!r} matches no parameter (there are {shown}, ...)"
            raise UnsupportedModelError(reason, "correct the pattern")
