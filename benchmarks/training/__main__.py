"""Step times and memory beside torch eager: ``python -m benchmarks.training``.

Each figure comes from processes of its own, torch and onnx in turns, so that what else the machine
does meets both. What stands in docs/onnx-training.md is written by ``--docs``.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click

from benchmarks.training.graphs import GraphFile, read_graph, write_graph
from benchmarks.training.models import TIMED
from benchmarks.training.pages import markdown_table, put_section
from fedfleet.tables import table

_PAGE = Path("docs", "onnx-training.md")
_PROCESS_S = 300
_COLUMNS = (
    "model", "values", "nodes", "torch ms", "onnx ms", "ratio", "aim", "torch p10", "onnx p10",
    "p10 ratio", "torch MB", "onnx MB",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What several processes of one kind measured; each field is their median.

    Attributes:
        median_s: Of the steps of one process.
        p10_s: A tenth of the steps were faster.
        peak_bytes: Resident memory.
    """

    median_s: float
    p10_s: float
    peak_bytes: float

    @classmethod
    def of(cls, runs: list[dict[str, float]]) -> "Figures":
        """Return the medians over processes."""
        return cls(*(median(run[key] for run in runs) for key in cls.__slots__))


def measured(name: str, graph: GraphFile, options: "Options") -> tuple[Figures, Figures]:
    """Return torch's and onnx's figures of one model, measured in turns."""
    threads, budget_s = str(options.threads), str(options.budget_s)
    commands = {
        "torch": ["torch_steps", name, str(options.batch), threads, budget_s],
        "onnx": ["onnx_steps", str(graph.path), threads, budget_s],
    }
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in commands}
    for _ in range(options.repeats):
        for kind, (module, *arguments) in commands.items():
            runs[kind].append(_process(module, arguments, options.threads))
    return Figures.of(runs["torch"]), Figures.of(runs["onnx"])


def _process(module: str, arguments: list[str], threads: int) -> dict[str, float]:
    told = subprocess.run(
        [sys.executable, "-m", f"benchmarks.training.{module}", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PROCESS_S,
    )
    found: dict[str, float] = json.loads(told.stdout)
    return found


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how wide to measure."""

    batch: int
    threads: int
    repeats: int
    budget_s: float


def row(name: str, graph: GraphFile, torch: Figures, onnx: Figures) -> tuple[str, ...]:
    """Return one row of the table."""
    subject = TIMED[name]
    aim = "-" if subject.target is None else f"{subject.target:.2f}"
    return (
        subject.title,
        f"{graph.trainable}",
        f"{graph.nodes}",
        f"{1000 * torch.median_s:.2f}",
        f"{1000 * onnx.median_s:.2f}",
        f"{onnx.median_s / torch.median_s:.2f}",
        aim,
        f"{1000 * torch.p10_s:.2f}",
        f"{1000 * onnx.p10_s:.2f}",
        f"{onnx.p10_s / torch.p10_s:.2f}",
        f"{torch.peak_bytes / 1e6:.0f}",
        f"{onnx.peak_bytes / 1e6:.0f}",
    )


def conditions(options: Options) -> str:
    """Return one sentence on how the figures came about."""
    return (
        f"Batch {options.batch}, {options.threads} thread(s), {options.repeats} processes of each "
        f"kind in turns, {options.budget_s:g} s of steps in each; Python "
        f"{platform.python_version()}, torch {version('torch')}, onnxruntime "
        f"{version('onnxruntime')}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}."
    )


@click.command()
@click.option("--model", "chosen", multiple=True, type=click.Choice(list(TIMED)))
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="A process.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build", "bench-train"))
@click.option("--reuse", is_flag=True, help="Take the graphs that are in --out already.")
@click.option("--docs", is_flag=True, help=f"Write the table into {_PAGE}.")
@click.option("--strict", is_flag=True, help="Fail when an aim is missed.")
def main(  # noqa: PLR0913, PLR0917
    chosen: tuple[str, ...],
    batch: int,
    threads: int,
    repeats: int,
    seconds: float,
    out: Path,
    reuse: bool,  # noqa: FBT001
    docs: bool,  # noqa: FBT001
    strict: bool,  # noqa: FBT001
) -> None:
    """Time training steps of onnx and of torch eager, and watch their memory."""
    options = Options(batch, threads, repeats, seconds)
    out.mkdir(parents=True, exist_ok=True)
    names = chosen or tuple(TIMED)
    rows, missed = [], []
    for name in names:
        path = out / f"{name}.onnx"
        kept = reuse and path.is_file()
        graph = read_graph(path) if kept else write_graph(out, name, TIMED[name], batch)
        torch, onnx = measured(name, graph, options)
        rows.append(row(name, graph, torch, onnx))
        aim = TIMED[name].target
        if aim is not None and onnx.median_s > aim * torch.median_s:
            missed.append(f"{TIMED[name].title}: {onnx.median_s / torch.median_s:.2f} > {aim}")
        print(f"{name}: {rows[-1][3]} / {rows[-1][4]} ms", file=sys.stderr, flush=True)
    told = conditions(options)
    print(f"{table(_COLUMNS, rows)}\n{told}")
    (out / "steps.md").write_text(f"{markdown_table(_COLUMNS, rows)}\n\n{told}\n")
    for one in missed:
        print(f"aim missed: {one}")
    if docs:
        put_section(_PAGE, "steps", f"{markdown_table(_COLUMNS, rows)}\n\n{told}")
    if strict and missed:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.training")
