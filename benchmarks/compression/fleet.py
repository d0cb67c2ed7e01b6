"""Devices and central in one process, with the codecs on the way up and on the way down.

The devices train with the training graph that a task's devices get. A device with error feedback
sends ``C(v)``, ``v = update + e``, and keeps ``e = v - C(v)``; central does the same with the
model's change, sent once a round to all (Seide et al., INTERSPEECH 2014; Karimireddy et al.,
ICML 2019, https://arxiv.org/abs/1901.09847; both ways: Sattler et al., IEEE TNNLS 2019,
https://arxiv.org/abs/1903.02891).
"""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.compression.settings import Setting
from benchmarks.training.fedavg import Start
from central.core.strategies.base import Contribution, Contributions
from central.core.strategies.fedavg import FedAvg
from device_agent.service.ports import TrainingRequest
from device_agent.training.onnx_trainer import OnnxTrainer
from schemas.messages import TrainingPlan
from updates.arrays import F32
from updates.codecs import Codec
from updates.layout import Layout

_F32_BYTES = 4


def keeps_an_error(codec: Codec) -> bool:
    """Tell whether a sender keeps what the codec left out: it must, or may and is biased."""
    return codec.feedback == "required" or (codec.feedback == "allowed" and codec.is_biased)


class Sender:
    """One end that encodes, with its memory where the codec has one."""

    def __init__(self, codec: Codec, layout: Layout) -> None:
        self.codec, self._layout = codec, layout
        self._error = np.zeros(layout.size, np.float32) if keeps_an_error(codec) else None

    def send(self, vector: F32, rng: np.random.Generator) -> bytes:
        """Return the payload of one vector of shape ``(layout.size,)``."""
        if self._error is None:
            return self.codec.encode(vector, self._layout, rng)
        wanted = vector + self._error
        payload = self.codec.encode(wanted, self._layout, rng)
        self._error = wanted - self.codec.decode(payload, self._layout)
        return payload


class Fleet:
    """The devices of one run and central.

    Attributes:
        vector: The model that the devices hold, shape ``(layout.size,)``.
        up_bytes: Of all updates' payloads so far.
        down_bytes: Of the models or their changes so far, counted once for every device.
    """

    def __init__(self, start: Start, setting: Setting, plan: TrainingPlan, graph: Path) -> None:
        self._start, self._plan, self._graph = start, plan, graph
        self._trainer, self._strategy = OnnxTrainer(), FedAvg()
        self._state, self.vector = self._strategy.init(start.vector), start.vector
        codec = setting.up.made()
        self._senders = [Sender(codec, start.layout) for _ in start.devices]
        down = setting.down
        self._down = None if down is None else Sender(down.made(), start.layout)
        self.up_bytes = self.down_bytes = 0

    def round(self, number: int) -> None:
        """Train on all devices, average, and bring the model to the devices."""
        items = tuple(self._contribution(number, index) for index in range(len(self._senders)))
        contributions = Contributions(self.vector, items)
        self._state, model = self._strategy.apply(self._state, contributions)
        self.vector = self._brought_down(model, number)

    def _contribution(self, number: int, index: int) -> Contribution:
        start, sender = self._start, self._senders[index]
        seed = (start.seed * 100_000 + number) * len(self._senders) + index
        data = start.devices[index]
        request = TrainingRequest(
            self._plan, start.layout, self.vector, data, seed, graph=self._graph
        )
        result = self._trainer.train(request, lambda _: None, lambda: False)
        payload = sender.send(result.delta, np.random.default_rng(seed))
        self.up_bytes += len(payload)
        return Contribution(
            f"device-{index}", result.num_examples, start.layout, sender.codec,
            partial(bytes, payload),
        )  # fmt: skip

    def _brought_down(self, model: F32, number: int) -> F32:
        devices = len(self._senders)
        if self._down is None:
            self.down_bytes += _F32_BYTES * model.size * devices
            return model
        rng = np.random.default_rng([self._start.seed, number])
        payload = self._down.send(model - self.vector, rng)
        self.down_bytes += len(payload) * devices
        return self.vector + self._down.codec.decode(payload, self._start.layout)
