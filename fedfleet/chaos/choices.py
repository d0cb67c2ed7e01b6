"""What a person may choose of a chaos run, and what follows from it. Pure."""

import math
import random
from dataclasses import dataclass
from typing import Literal

from fedfleet.testbed.choices import BrokerKind, Options

#: Inputs and classes of the digits, which every device here has.
_INPUTS, _CLASSES = 64, 10
_FLOAT32_BYTES = 4
_MIB = 1 << 20
_ROUNDS = (8, 14)


Training = Literal["real", "drill", "both"]


@dataclass(frozen=True, slots=True)
class ChaosOptions:
    """What a person chose.

    Attributes:
        devices: Device processes.
        regions: Gateway processes.
        broker: ``mosquitto`` without persistence, or ``embedded``.
        model: Architecture; an ``mlp`` is made wide enough for ``update_mb``.
        codec: How updates are encoded.
        kills: At least so many programs are killed.
        updates: At least so many updates are accepted.
        seconds: Hurting ends after this long, whatever was reached.
        pace_s: Mean time between two faults, unless kills are ahead of updates.
        seed: Decides every fault and every task.
        update_mb: Least size of one update as float32, MiB.
        training: ``real``, ``drill`` (devices answer with zeros of the same size), or ``both``:
            one task like this, the next like that. A killed device loads its framework again
            for real training, which takes most of a busy machine's time.
    """

    devices: int = 4
    regions: int = 2
    broker: BrokerKind = "mosquitto"
    model: str = "mlp"
    codec: str = "raw-f32"
    kills: int = 200
    updates: int = 300
    seconds: float = 600.0
    pace_s: float = 0.6
    seed: int = 1
    update_mb: float = 1.0
    training: Training = "both"

    @property
    def fleet(self) -> Options:
        """The fleet's shape, as the testbed takes it."""
        return Options(devices=self.devices, regions=self.regions, broker=self.broker)

    @property
    def hidden(self) -> int:
        """Width of two hidden layers that make an update as large as was asked for."""
        floats = self.update_mb * _MIB / _FLOAT32_BYTES
        linear = _INPUTS + 1 + 1 + _CLASSES
        root = math.sqrt(linear * linear + 4 * (floats - _CLASSES))
        return max(1, math.ceil((root - linear) / 2))


def submission(options: ChaosOptions, number: int) -> dict[str, object]:
    """Return the task of this number; the seed decides how many rounds and clients it has."""
    rng = random.Random(f"{options.seed}/{number}")  # noqa: S311 - to be repeated, not secret
    sized = (
        {"model_params": {"hidden": [options.hidden, options.hidden]}}
        if options.model == "mlp"
        else {}
    )
    is_drill = options.training == "drill" or (options.training == "both" and number % 2 == 0)
    needed = rng.randint(max(1, options.devices // 2), options.devices)
    # With all devices needed and none to wait for, hardly a round would ever end well.
    waits = needed == options.devices or rng.random() < 0.5  # noqa: PLR2004
    return {
        "task": f"chaos-{number}",
        "model": options.model,
        **sized,
        "data": "digits",
        "rounds": rng.randint(*_ROUNDS),
        "min_clients": needed,
        "cohort": options.devices,
        "codec": options.codec,
        "deadline_s": 20,
        "on_shortfall": "extend" if waits else "abandon",
        "training": {
            "epochs": 0 if is_drill else 1,
            "batch_size": 64,
            "learning_rate": 0.05,
            "seed": number,
        },
    }
