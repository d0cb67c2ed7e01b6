"""The refusal of an .onnx file."""

from learning.models.architectures import ModelError


class UnsafeModelError(ModelError):
    """An .onnx file is not taken.

    Attributes:
        code: Stable machine-readable cause of every such refusal.
        gate: Which of the gates refused: ``size``, ``operator``, ``shapes`` and so on.
        reason: What is in the way.
    """

    code = "E_MODEL_UNSAFE"

    def __init__(self, gate: str, reason: str, file: str = "") -> None:
        where = f"{file}: " if file else ""
        super().__init__(f"model: {where}{gate}: {reason}")
        self.gate = gate
        self.reason = reason
        self.file = file

    def of(self, file: str) -> "UnsafeModelError":
        """Return the same refusal with the name of the file."""
        return UnsafeModelError(self.gate, self.reason, file)
