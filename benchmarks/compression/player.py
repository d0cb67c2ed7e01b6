"""Plays runs on MNIST, one after another; what was finished before is only read."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.compression.fleet import Fleet
from benchmarks.compression.results import Results, Run
from benchmarks.compression.settings import BATCH, DEVICES, EVERY, Setting
from benchmarks.training.fedavg import MODEL, Start, accuracy, plan_for, write_graph
from benchmarks.training.models import TIMED
from device_agent.service.ports import TrainingError
from learning.data.sources import load
from schemas.tasks import Training

_TOLD_EVERY = 50


class Player:
    """Has the data, and the runs that are finished."""

    def __init__(self, mnist: Path, out: Path) -> None:
        spec = f"mnist={mnist}"
        self._whole, self._held_out = load(spec), load(spec, train=False)
        self._out, self._results = out, Results(out / "fedavg.jsonl")
        self._starts: dict[int, Start] = {}
        torch.set_num_threads(1)

    def finished(self, setting: Setting, seed: int) -> Run | None:
        """Return a run if it was played before, else None."""
        found = self._results.get(setting.key(seed), setting.rounds)
        return None if found is None else replace(found, title=setting.title)

    def run(self, setting: Setting, seed: int) -> Run:
        """Return a run, played now if it was not before."""
        found = self.finished(setting, seed)
        if found is None:
            found = self._played(setting, seed, setting.key(seed))
            self._results.add(found)
        return found

    def _played(self, setting: Setting, seed: int, key: str) -> Run:
        start, fleet = self._begun(setting, seed)
        began = time.monotonic()
        rounds, right, up, down, diverged = [], [], [], [], ""
        for number in range(1, setting.rounds + 1):
            try:
                fleet.round(number)
            except TrainingError as error:
                diverged = str(error)
            if number % EVERY and number != setting.rounds and not diverged:
                continue
            rounds.append(number)
            right.append(accuracy(start, fleet.vector, self._held_out))
            up.append(fleet.up_bytes)
            down.append(fleet.down_bytes)
            if not number % _TOLD_EVERY or diverged:
                told = f"{setting.title}, seed {seed}, round {number}: {right[-1]:.2f} %"
                took = f"{time.monotonic() - began:.0f} s"
                print(f"{told}, {up[-1]} B, {took} {diverged}", file=sys.stderr, flush=True)
            if diverged:
                break
        took_s = round(time.monotonic() - began, 1)
        return Run(key, setting.title, seed, rounds, right, up, down, took_s, diverged)

    def _begun(self, setting: Setting, seed: int) -> tuple[Start, Fleet]:
        training = Training(
            steps=setting.steps,
            batch_size=BATCH,
            learning_rate=setting.learning_rate,
            momentum=setting.momentum,
        )
        if seed not in self._starts:
            self._starts[seed] = Start.of(MODEL, self._whole, seed, DEVICES)
        start = self._starts[seed]
        self._out.mkdir(parents=True, exist_ok=True)
        graph = (self._out / f"graph-{setting.momentum:g}").resolve()
        write_graph(graph, TIMED[MODEL], training)
        return start, Fleet(start, setting, plan_for(start, self._whole, training), graph)
