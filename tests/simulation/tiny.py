"""Models of eight parameters, and training whose sums depend on their order."""

import functools
import hashlib

import numpy as np

from central.service.ports import Prepared
from device_agent.core.backend import ONNX
from device_agent.service.ports import TrainingRequest, TrainingResult, Vitals
from learning.data.dataset import Dataset
from schemas.limits import MIB
from schemas.messages import Capabilities, DataDescription
from schemas.tasks import Downlink
from updates.layout import Layout

CLASSES = 10
SHAPE = (4,)
SMALL = Layout.of({"b": (2,), "w": (3, 2)})
#: As float32 a bit more than what rides inline.
LARGE = Layout.of({"w": (66_000,)})
#: Stands for a training graph; the trainer looks that it is there, and whole.
GRAPH = b"tiny graph"
#: Of a compressed downlink: drops most of a small model's values in each round.
DOWNLINK = Downlink(codec="topk", codec_params={"fraction": 0.4})
#: Cancels only in one order of adding, so that a sum in another order shows.
_BIG = np.float32(2.0**60)


class TinyModeler:
    """The ports ``Modeler`` and ``Exporter`` without torch."""

    def __init__(self, is_large: bool, has_graph: bool) -> None:
        self.layout = LARGE if is_large else SMALL
        self._graph = GRAPH if has_graph else None

    def check(self, submission: object) -> None:
        return

    def prepare(self, submission: object, data: object, scratch: object) -> Prepared:
        return Prepared(self.layout, np.zeros(self.layout.size, np.float32), self._graph)

    def has_evaluation(self, data: DataDescription) -> bool:
        return data.examples % 4 == 0

    def evaluate(self, *_: object) -> dict[str, float]:
        return {"accuracy": 0.5}

    def write(self, *_: object) -> None:
        return


class TinyTrainer:
    """Gives an update that depends only on the request; tells the ledger what it was."""

    def __init__(self, ledger: object, backend: str) -> None:
        self._ledger = ledger
        self.backend = backend

    def train(
        self, request: TrainingRequest, progress: object, should_stop: object
    ) -> TrainingResult:
        if self.backend == ONNX:
            assert request.graph is not None
            assert request.graph.read_bytes() == GRAPH
        delta = delta_of(request.round_seed, request.layout.size)
        return TrainingResult(delta, len(request.data), {"loss": 0.5})


def delta_of(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    delta = rng.standard_normal(size, dtype=np.float32)
    kinds = rng.integers(0, 4, size)
    delta[kinds == 0] = _BIG
    delta[kinds == 1] = -_BIG
    return delta


class TinyMachine:
    """The port ``Machine``."""

    def __init__(self, backend: str) -> None:
        self._capabilities = Capabilities(backends=(backend,), memory_bytes=2048 * MIB, cores=1)

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def memory_free_bytes(self) -> int:
        return 1024 * MIB

    def vitals(self) -> Vitals:
        return Vitals(load=0.5, memory_free_bytes=1024 * MIB)


@functools.cache
def dataset_of(device: str) -> Dataset:
    """Return a device's data: as many examples as a power of two, by its name."""
    examples = 2 << (hashlib.sha256(device.encode()).digest()[0] % 2)
    x = np.zeros((examples, *SHAPE), np.float32)
    return Dataset(x, np.zeros(examples, np.int64), CLASSES, "digits")
