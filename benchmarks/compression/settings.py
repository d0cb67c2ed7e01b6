"""What is run on MNIST: one line a setting, and how it is named in tables."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from updates.codecs import Codec, create

#: The default of a run: as a task has them where it does not say otherwise, but for ``steps``.
STEPS, ROUNDS, LEARNING_RATE, MOMENTUM, BATCH = 10, 100, 0.05, 0.9, 32
DEVICES, EVERY = 10, 5
BASELINE = "raw-f32"


@dataclass(frozen=True, slots=True)
class Coding:
    """A codec and its parameters.

    Attributes:
        codec: Its id.
        params: Those that are not its defaults.
    """

    codec: str
    params: Mapping[str, object] = field(default_factory=dict)

    def made(self) -> Codec:
        """Return the codec."""
        return create(self.codec, self.params)

    @property
    def whole(self) -> tuple[str, dict[str, object]]:
        """The codec's id and all of its parameters."""
        return self.codec, asdict(self.made())

    @property
    def title(self) -> str:
        """Name in tables: ``topk fraction=0.01``."""
        told = [f"{key}={value}" for key, value in self.params.items()]
        return " ".join([self.codec, *told])


@dataclass(frozen=True, slots=True)
class Setting:
    """One run's conditions without its seed.

    Attributes:
        up: How updates are encoded.
        down: How the model's change is encoded; None: the whole model as float32.
        steps: Local ones a round.
        rounds: As many are played.
        learning_rate: Of the devices.
        momentum: Of the devices, begun anew in each round.
    """

    up: Coding
    down: Coding | None = None
    steps: int = STEPS
    rounds: int = ROUNDS
    learning_rate: float = LEARNING_RATE
    momentum: float = MOMENTUM

    @property
    def title(self) -> str:
        """Name in tables: the codecs, and what differs from the default conditions."""
        parts = [self.up.title]
        if self.down is not None:
            parts.append(f"down {self.down.title}")
        plain = Setting(self.up)
        parts += [
            f"{name.replace('_', ' ')} {getattr(self, name):g}"
            for name in ("steps", "rounds", "learning_rate", "momentum")
            if getattr(self, name) != getattr(plain, name)
        ]
        return ", ".join(parts)

    def key(self, seed: int) -> str:
        """Return the name of one run; a longer run begins as a shorter one, and shares it.

        It has every parameter of the codecs, so that a changed default is another run.
        """
        conditions = {name: value for name, value in asdict(self).items() if name != "rounds"}
        conditions["up"] = self.up.whole
        conditions["down"] = None if self.down is None else self.down.whole
        told = json.dumps([conditions, seed], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]
