"""What a person may choose of a run, and the defaults that were measured. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

BrokerKind = Literal["embedded", "mosquitto"]
#: What devices train with; ``mixed``: half of each region's with each.
BackendKind = Literal["onnx", "torch", "mixed"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What trains well on one kind of data; each field is a default that a flag overrides."""

    model: str
    rounds: int
    epochs: int
    batch_size: int
    learning_rate: float
    devices: int = 8
    codec: str = "int8"


RECIPES: dict[str, Recipe] = {
    "digits": Recipe("mlp", rounds=10, epochs=2, batch_size=16, learning_rate=0.1),
    "mnist": Recipe("lenet5", rounds=5, epochs=1, batch_size=32, learning_rate=0.05),
    "har": Recipe("cnn1d", rounds=15, epochs=2, batch_size=16, learning_rate=0.02, devices=12),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a person chose; None means the recipe's default.

    Attributes:
        data: Kind of data, a key of ``RECIPES``.
        data_path: Its folder, where the kind needs one.
        codec_params: The codec's settings, by name.
        downlink: Codec of new models on their way down; None: they are sent whole.
        alpha: Concentration of the Dirichlet split; smaller is more unlike.
    """

    data: str = "digits"
    data_path: Path | None = None
    devices: int = 8
    regions: int = 2
    rounds: int | None = None
    min_clients: int | None = None
    model: str | None = None
    codec: str | None = None
    codec_params: Mapping[str, object] = field(default_factory=dict)
    downlink: str | None = None
    alpha: float = 0.5
    seed: int = 0
    broker: BrokerKind = "embedded"
    backend: BackendKind = "onnx"
    learning_rate: float | None = None
    epochs: int | None = None
    batch_size: int | None = None

    @property
    def recipe(self) -> Recipe:
        """The defaults for this data."""
        return RECIPES[self.data]

    @property
    def needed(self) -> int:
        """Updates that end a round: all devices unless said, so that a run can be repeated."""
        return self.min_clients if self.min_clients is not None else self.devices
