"""Which model is meant, and what central and the process that builds it say to each other."""

from enum import Enum
from pathlib import Path

from central.modeling.limits import ProcessLimits
from schemas.base import WireMessage
from schemas.tasks import Parameter, Training

ONNX_SUFFIX = ".onnx"


class ModelRequest(WireMessage):
    """Which model, for which data, and the seed of its first parameters.

    ``target`` is what central's settings have for a name that is not built in:
    ``package.module:factory`` or the path of an .onnx file.
    """

    model: str
    params: dict[str, Parameter]
    shape: tuple[int, ...]
    classes: int
    seed: int
    target: str | None = None

    @property
    def file(self) -> Path | None:
        """The .onnx file that the model is, or None: it is made by code."""
        return Path(self.target) if self.target and is_file(self.target) else None


def is_file(target: str) -> bool:
    """Tell whether an entry of the setting ``models`` is the path of an .onnx file."""
    return target.endswith(ONNX_SUFFIX)


def step_settings(training: Training) -> dict[str, object]:
    """Return what a training graph depends on, as the fields of a ``StepSpec``."""
    is_sgd = training.optimizer == "sgd"
    return {
        "loss": training.loss,
        "optimizer": training.optimizer,
        "momentum": training.momentum if is_sgd else 0.0,
        "nesterov": is_sgd and training.nesterov,
        "weight_decay": training.weight_decay,
        "has_proximal": training.proximal_mu > 0,
        "has_clipping": training.gradient_clip_norm is not None,
        "frozen": training.frozen,
    }


class Word(Enum):
    """The files that the process leaves in its scratch folder."""

    OUTCOME = "outcome.json"
    MODEL = "model.safetensors"
    GRAPH = "graph.zlib"


class PrepareRequest(WireMessage):
    """What to build; ``parent`` is the id of the process that asks.

    Without ``training`` it is the forward graph alone.
    """

    parent: int
    model: ModelRequest
    training: Training | None
    wants_graph: bool
    cache: str
    scratch: str
    report_batch: int | None = None
    limits: ProcessLimits | None = None


class Report(WireMessage):
    """What a model is made of and how it can be trained.

    ``operators`` counts the nodes of the forward graph by operator. ``batch_bytes`` is the memory
    that one step needs beside the parameters, measured by running it, or None: it has no graph.
    """

    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: dict[str, tuple[int, ...]]
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    operators: dict[str, int]
    without_rule: tuple[str, ...]
    graph_bytes: int = 0
    state_values: int = 0
    batch_bytes: int | None = None


class Outcome(WireMessage):
    """What came of it.

    ``refused`` tells a person why there is no model at all; ``gate`` and ``file`` are set when
    that is for what its file is. ``reason`` tells why it has no training graph, ``not_kept`` why
    its forward graph is not in the cache.
    """

    key: str = ""
    refused: str | None = None
    gate: str | None = None
    file: str = ""
    has_graph: bool = False
    reason: str | None = None
    report: Report | None = None
    not_kept: str | None = None
