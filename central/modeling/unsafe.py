"""The refusal of an .onnx file."""

from enum import Enum

from learning.models.architectures import ModelError


class Gate(Enum):
    """What an .onnx file must pass, one after another."""

    FILE = "file"
    SIZE = "size"
    FORMAT = "format"
    OPSET = "opset"
    IR_VERSION = "ir_version"
    NODES = "nodes"
    SPARSE = "sparse"
    INITIALIZER = "initializer"
    TYPE = "type"
    EXTERNAL_DATA = "external_data"
    SUBGRAPH = "subgraph"
    DOMAIN = "domain"
    FUNCTIONS = "functions"
    OPERATOR = "operator"
    NAMES = "names"
    ORDER = "order"
    CHECKER = "checker"
    SHAPES = "shapes"
    INPUT = "input"
    OUTPUT = "output"
    PARAMETERS = "parameters"
    TRIAL = "trial"
    MEMORY = "memory"
    TIME = "time"
    PROCESS = "process"


class UnsafeModelError(ModelError):
    """An .onnx file is not taken.

    Attributes:
        code: Stable machine-readable cause of every such refusal.
        gate: Name of the gate that refused: ``size``, ``operator``, ``shapes`` and so on.
        reason: What is in the way.
    """

    code = "E_MODEL_UNSAFE"

    def __init__(self, gate: Gate, reason: str, file: str = "") -> None:
        where = f"{file}: " if file else ""
        super().__init__(f"model: {where}{gate.value}: {reason}")
        self._gate = gate
        self.gate = gate.value
        self.reason = reason
        self.file = file

    def of(self, file: str) -> "UnsafeModelError":
        """Return the same refusal with the name of the file."""
        return UnsafeModelError(self._gate, self.reason, file)
