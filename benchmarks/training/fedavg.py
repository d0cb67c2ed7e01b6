"""FedAvg on MNIST with devices of one or both kinds: ``python -m benchmarks.training.fedavg``.

Eight devices, LeNet-5, classes dealt out by a Dirichlet distribution of 0.5 (the split of
``learning.data.splits``), no network in between: the devices' trainers and central's strategy.
The fleets of one seed share their data, first parameters and order of batches, so that only the
trainers differ: all onnx, all torch, or every other device.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np

from benchmarks.training.forward import forward_graph
from benchmarks.training.models import TIMED, Subject
from benchmarks.training.pages import markdown_table, put_section
from central.core.strategies.base import Contribution, Contributions
from central.core.strategies.fedavg import FedAvg
from central.modeling.training_graph import StepSpec, build_training_graph
from device_agent.service.ports import Trainer, TrainingRequest
from device_agent.training.onnx_trainer import OnnxTrainer
from device_agent.training.torch_trainer import TorchTrainer
from fedfleet.tables import table
from learning.data.dataset import Dataset
from learning.data.sources import load
from learning.data.splits import shard
from learning.graph_file import encode_graph
from learning.models import parameters, registry
from schemas.messages import TrainingPlan
from schemas.tasks import Training
from updates.arrays import F32
from updates.codecs import create
from updates.layout import Layout

MODEL, DEVICES, ALPHA = "lenet5", 8, 0.5
#: The accuracies of one seed may lie so far apart, in percentage points.
SPREAD = 0.5
_CODEC = "raw-f32"
_TEST_BATCH = 1000
_PAGE = Path("docs", "onnx-training.md")
#: Fleet -> kinds of its devices, in turns.
FLEETS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx",),
    "torch": ("torch",),
    "mixed": ("onnx", "torch"),
}


@dataclass(frozen=True, slots=True)
class Start:
    """What the fleets of one seed share.

    Attributes:
        model: Name of a built-in model.
        devices: Each device's data.
        layout: Of the parameters.
        vector: The first parameters, shape ``(layout.size,)``.
        seed: Of data, parameters and batches.
    """

    model: str
    devices: Sequence[Dataset]
    layout: Layout
    vector: F32
    seed: int

    @classmethod
    def of(cls, model: str, whole: Dataset, seed: int, count: int = DEVICES) -> "Start":
        """Deal the data out to so many devices and draw the parameters."""
        module = registry.build(model, {}, whole.x.shape[1:], whole.classes, seed)
        layout = Layout.of(parameters.shapes_of(module))
        devices = [shard(whole, index, count, ALPHA, seed) for index in range(1, count + 1)]
        return cls(model, devices, layout, layout.flatten(parameters.read(module)), seed)


class Fleet:
    """Devices and central in one process."""

    def __init__(
        self, start: Start, kinds: Sequence[str], plan: TrainingPlan, graph: Path
    ) -> None:
        self._start, self._plan, self._graph = start, plan, graph
        trainers: dict[str, Trainer] = {"onnx": OnnxTrainer(), "torch": TorchTrainer()}
        self._trainers = [trainers[kinds[index % len(kinds)]] for index in range(DEVICES)]
        self._strategy, self._codec = FedAvg(), create(_CODEC)
        self._state, self.vector = self._strategy.init(start.vector), start.vector

    def round(self, number: int) -> None:
        """Train on all devices and average."""
        items = tuple(self._contribution(number, index) for index in range(DEVICES))
        contributions = Contributions(self.vector, items)
        self._state, self.vector = self._strategy.apply(self._state, contributions)

    def _contribution(self, number: int, index: int) -> Contribution:
        start = self._start
        seed = (start.seed * 1000 + number) * DEVICES + index
        request = TrainingRequest(
            self._plan, start.layout, self.vector, start.devices[index], seed, graph=self._graph
        )
        result = self._trainers[index].train(request, lambda _: None, lambda: False)
        payload = self._codec.encode(result.delta, start.layout, np.random.default_rng(seed))
        return Contribution(
            f"device-{index}", result.num_examples, start.layout, self._codec,
            partial(bytes, payload),
        )  # fmt: skip


def write_graph(file: Path, subject: Subject, training: Training) -> Layout:
    """Write a model's training graph as it travels; return its layout."""
    spec = StepSpec(momentum=training.momentum)
    made = build_training_graph(forward_graph(subject), spec)
    file.write_bytes(encode_graph(made.model.SerializeToString()))
    return made.layout


def accuracy(start: Start, vector: F32, held_out: Dataset) -> float:
    """Return the share of the held-out examples that the model gets right, in percent."""
    import torch  # noqa: PLC0415

    module = registry.build(start.model, {}, held_out.x.shape[1:], held_out.classes).eval()
    parameters.write(module, start.layout.unflatten(vector))
    right = 0
    with torch.inference_mode():
        for first in range(0, len(held_out), _TEST_BATCH):
            logits = module(torch.from_numpy(held_out.x[first : first + _TEST_BATCH]))
            right += int(
                (logits.argmax(1).numpy() == held_out.y[first : first + _TEST_BATCH]).sum()
            )
    return 100 * right / len(held_out)


def plan_for(start: Start, whole: Dataset, training: Training) -> TrainingPlan:
    """Return the plan that every device of a seed gets."""
    return TrainingPlan(
        model=start.model,
        input_shape=whole.x.shape[1:],
        classes=whole.classes,
        parameters=start.layout.size,
        layout_sha256=start.layout.digest,
        data=whole.name,
        training=training,
        codec=_CODEC,
    )


def played(start: Start, fleet: Fleet, rounds: int, held_out: Dataset) -> list[float]:
    """Return the accuracies after half of the rounds and after all, in percent."""
    found = []
    for number in range(1, rounds + 1):
        fleet.round(number)
        if number in {(rounds + 1) // 2, rounds}:
            found.append(accuracy(start, fleet.vector, held_out))
    return found


def mnist_folder(given: Path | None) -> Path:
    """Return where MNIST lies.

    Raises:
        click.ClickException: Nobody said, or it is not there.
    """
    root = os.environ.get("FEDFLEET_TEST_DATA")
    folder = given or (Path(root) / "mnist" if root else None)
    if folder is None or not folder.is_dir():
        message = (
            f"MNIST is absent: {folder or 'no folder was given'}; give --mnist FOLDER, or set "
            "FEDFLEET_TEST_DATA to a directory with mnist/ (train-images-idx3-ubyte.gz, ...)"
        )
        raise click.ClickException(message)
    return folder


@click.command()
@click.option("--mnist", type=click.Path(path_type=Path), help="Folder of the IDX files.")
@click.option("--rounds", type=click.IntRange(2), default=12, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build", "bench-train"))
@click.option("--docs", is_flag=True, help=f"Write the table into {_PAGE}.")
def main(  # noqa: PLR0913, PLR0917
    mnist: Path | None,
    rounds: int,
    steps: int,
    seeds: int,
    out: Path,
    docs: bool,  # noqa: FBT001
) -> None:
    """Train fleets of onnx, torch and both; fail when their accuracies lie too far apart."""
    spec = f"mnist={mnist_folder(mnist)}"
    whole, held_out = load(spec), load(spec, train=False)
    training = Training(steps=steps, batch_size=32, learning_rate=0.05)
    out.mkdir(parents=True, exist_ok=True)
    graph = (out / "fedavg-graph").resolve()
    layout = write_graph(graph, TIMED[MODEL], training)
    rows, spreads = [], []
    for seed in range(1, seeds + 1):
        start = Start.of(MODEL, whole, seed)
        if start.layout != layout:
            message = "the graph and the module have different parameters"
            raise click.ClickException(message)
        plan = plan_for(start, whole, training)
        final = {}
        for name, kinds in FLEETS.items():
            began = time.monotonic()
            half, final[name] = played(start, Fleet(start, kinds, plan, graph), rounds, held_out)[
                -2:
            ]
            took_s = time.monotonic() - began
            print(f"seed {seed}, {name}: {half:.2f}, {final[name]:.2f} %, {took_s:.0f} s",
                  file=sys.stderr, flush=True)  # fmt: skip
        spreads.append(max(final.values()) - min(final.values()))
        rows.append((str(seed), *(f"{one:.2f}" for one in final.values()), f"{spreads[-1]:.2f}"))
    columns = ("seed", *(f"{name} %" for name in FLEETS), "apart")
    told = f"{rounds} rounds of {steps} steps, batch 32, learning rate 0.05, 10,000 test images."
    print(f"{table(columns, rows)}\n{told}")
    (out / "fedavg.json").write_text(json.dumps({"columns": columns, "rows": rows}))
    if docs:
        put_section(_PAGE, "fedavg", f"{markdown_table(columns, rows)}\n\n{told}")
    if max(spreads) > SPREAD:
        print(f"further apart than {SPREAD} points", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.training.fedavg")
