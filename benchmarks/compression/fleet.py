"""Devices and central in one process, with the codecs on the way up and on the way down.

The devices train with the training graph that a task's devices get. On the way down central sends
the model's change once a round to all, with error feedback of its own (Sattler et al., IEEE TNNLS
2019, https://arxiv.org/abs/1903.02891).
"""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.compression.senders import Energies, Feeding, sender
from benchmarks.compression.settings import Setting
from benchmarks.training.fedavg import Start
from central.core.strategies.base import Contribution, Contributions
from central.core.strategies.fedavg import FedAvg
from device_agent.service.ports import TrainingRequest
from device_agent.training.onnx_trainer import OnnxTrainer
from schemas.messages import TrainingPlan
from updates.arrays import F32

_F32_BYTES = 4


class Fleet:
    """The devices of one run and central.

    Attributes:
        vector: The model that the devices hold, shape ``(layout.size,)``.
        up_bytes: Of all updates' payloads so far.
        down_bytes: Of the models or their changes so far, counted once for every device.
        down: Central's end of the way down; None: the whole model goes down.
    """

    def __init__(self, start: Start, setting: Setting, plan: TrainingPlan, graph: Path) -> None:
        self._start, self._plan, self._graph = start, plan, graph
        self._trainer, self._strategy = OnnxTrainer(), FedAvg()
        self._state, self.vector = self._strategy.init(start.vector), start.vector
        codec, self._energies = setting.up.made(), Energies(len(start.devices))
        self._senders = [sender(codec, start.layout, self._energies) for _ in start.devices]
        down = setting.down
        self.down = None if down is None else Feeding(down.made(), start.layout)
        self.up_bytes = self.down_bytes = 0

    def round(self, number: int) -> None:
        """Train on all devices, average, and bring the model to the devices."""
        items = tuple(self._contribution(number, index) for index in range(len(self._senders)))
        contributions = Contributions(self.vector, items)
        self._state, model = self._strategy.apply(self._state, contributions)
        self._energies.note(model - self.vector)
        self.vector = self._brought_down(model, number)

    def _contribution(self, number: int, index: int) -> Contribution:
        start = self._start
        seed = (start.seed * 100_000 + number) * len(self._senders) + index
        data = start.devices[index]
        request = TrainingRequest(
            self._plan, start.layout, self.vector, data, seed, graph=self._graph
        )
        result = self._trainer.train(request, lambda _: None, lambda: False)
        sent = self._senders[index].send(result.delta, np.random.default_rng(seed))
        self.up_bytes += sent.wire_bytes
        return Contribution(
            f"device-{index}", result.num_examples, start.layout, sent.codec,
            partial(bytes, sent.payload),
        )  # fmt: skip

    def _brought_down(self, model: F32, number: int) -> F32:
        devices = len(self._senders)
        if self.down is None:
            self.down_bytes += _F32_BYTES * model.size * devices
            return model
        rng = np.random.default_rng([self._start.seed, number])
        sent = self.down.send(model - self.vector, rng)
        self.down_bytes += sent.wire_bytes * devices
        return self.vector + sent.codec.decode(sent.payload, self._start.layout)
