"""What a device needs to train LeNet-5: ``python -m benchmarks.training.footprint``.

A fresh environment gets ``pip install .[device]`` and nothing else. It must hold neither torch nor
onnx; in it a device trains, and its memory and its first step are measured. Then the program
itself takes part in rounds of a fleet; with ``--torch`` a second one does, with PyTorch.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Literal

import click

from benchmarks.training.device_jobs import write_job
from benchmarks.training.device_round import ROUNDS, RoundUse, play
from benchmarks.training.pages import markdown_table, put_section
from fedfleet.tables import table
from schemas.tasks import Training

MAX_RESIDENT_BYTES = 120_000_000
MAX_FIRST_STEP_S = 1.5
MAX_IMPORT_S = 1.0
UNWANTED = frozenset({"torch", "onnx", "onnxscript", "onnxruntime-training", "tensorflow", "jax"})
_ROOT = Path(__file__).resolve().parents[2]
_PAGE = Path("docs", "onnx-training.md")
_LEFT_OUT = shutil.ignore_patterns(
    ".*", "build", "runs", "tests", "docs", "benchmarks", "__pycache__", "*.egg-info"
)
_TORCH = "torch==2.13.0"
#: Of ten digits; chance is 0.1.
_LEARNED = 0.5
_INSTALL_S = 600
_TRAIN_S = 60


def install(folder: Path, *, torch: str | None = None) -> Path:
    """Return the interpreter of a new environment with the device's packages.

    Args:
        folder: For the environment; what is there goes.
        torch: What pip is to install besides, as the Makefile's TORCH.

    Raises:
        subprocess.CalledProcessError: venv or pip failed; their own text is on stderr.
    """
    shutil.rmtree(folder, ignore_errors=True)
    source, environment = folder / "source", folder / "environment"
    shutil.copytree(_ROOT, source, ignore=_LEFT_OUT)  # setuptools writes into what it builds
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=_INSTALL_S)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    wanted = [*shlex.split(torch or ""), f"{source}[device]"]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True, timeout=_INSTALL_S)
    return python


def packages(python: Path) -> dict[str, str]:
    """Return the installed packages and their versions."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TRAIN_S)
    return {one["name"].lower(): one["version"] for one in json.loads(told.stdout)}


def train(python: Path, arguments: tuple[str, ...]) -> dict[str, float]:
    """Return what one device's process told of its job.

    Raises:
        subprocess.CalledProcessError: It failed; the reason is on stderr.
    """
    script = Path(__file__).with_name("device_alone.py")
    told = subprocess.run(
        [python, "-I", script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TRAIN_S,
    )
    found: dict[str, float] = json.loads(told.stdout)
    return found


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@click.command()
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build", "footprint"))
@click.option("--torch", is_flag=True, help="Install PyTorch too and measure a device with it.")
@click.option("--docs", is_flag=True, help=f"Write the table into {_PAGE}.")
def main(repeats: int, out: Path, torch: bool, docs: bool) -> None:  # noqa: FBT001
    """Install a device, train LeNet-5 on it, and fail when it takes too much."""
    python = install(out.resolve())
    found = packages(python)
    if unwanted := UNWANTED & found.keys():
        message = f"the device's environment holds {', '.join(sorted(unwanted))}"
        raise click.ClickException(message)
    job = write_job(out.resolve(), "lenet5", Training(steps=100, learning_rate=0.01))
    runs = [train(python, job.arguments) for _ in range(repeats)]
    middle = {key: median(run[key] for run in runs) for key in
              ("imported_s", "first_step_s", "resident_bytes", "peak_bytes")}  # fmt: skip
    fleet = _in_a_fleet(python, "onnx", out.resolve())
    rows = [
        ("packages", f"{len(found)}", "neither torch nor onnx"),
        ("environment", f"{_size_bytes(python.parents[1]) / 1e6:.0f} MB", ""),
        ("agent and trainer imported", f"{middle['imported_s']:.2f} s", f"< {MAX_IMPORT_S:g} s"),
        ("first step done", f"{middle['first_step_s']:.2f} s", f"< {MAX_FIRST_STEP_S} s"),
        ("resident after training", f"{middle['resident_bytes'] / 1e6:.0f} MB", ""),
        ("resident at most", f"{middle['peak_bytes'] / 1e6:.0f} MB", "< 120 MB"),
        (f"`fedfleet device`, {ROUNDS} rounds, at most", _megabytes(fleet.peak_bytes), "< 120 MB"),
    ]
    if torch:
        other = install(out.resolve() / "with-torch", torch=os.environ.get("TORCH", _TORCH))
        use = _in_a_fleet(other, "torch", out.resolve())
        rows.append(("the same with the torch backend", _megabytes(use.peak_bytes), ""))
    columns = (f"LeNet-5, onnxruntime {found['onnxruntime']}", "median", "aim")
    print(table(columns, rows))
    if docs:
        put_section(_PAGE, "footprint", markdown_table(columns, rows))
    peak_bytes = max(middle["peak_bytes"], fleet.peak_bytes)
    is_slow = middle["first_step_s"] >= MAX_FIRST_STEP_S or middle["imported_s"] >= MAX_IMPORT_S
    if peak_bytes >= MAX_RESIDENT_BYTES or is_slow:
        sys.exit(1)


def _in_a_fleet(python: Path, backend: Literal["onnx", "torch"], out: Path) -> RoundUse:
    folder = out / f"fleet-{backend}"
    shutil.rmtree(folder, ignore_errors=True)
    use = play(python, backend, folder)
    if use.accuracy < _LEARNED:
        message = f"the fleet with {backend} learned nothing: accuracy {use.accuracy:.2f}"
        raise click.ClickException(message)
    return use


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.training.footprint")
