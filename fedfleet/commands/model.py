"""``model``: look at a model before it is trained: can it be, how fast, and as a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fedfleet import model_bench, model_check, model_choice, model_export, options
from schemas.tasks import Training

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LOSSES = ("cross_entropy", "bce", "mse", "huber", "model")
_OPTIMIZERS = ("sgd", "adam", "adamw")


class ShapeType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3
    """A shape such as ``1x28x28``."""

    name = "shape"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the dimensions."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split("x")
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"{value!r} is not a shape such as 1x28x28", param, ctx)
        return tuple(map(int, parts))


def _which(command: CommandT) -> CommandT:
    """Add what says which model: MODEL and the data it is for."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the parameters."),
        click.option("--set", "settings", multiple=True, metavar="NAME=VALUE",
                     help="A setting of the model; repeatable."),
        click.option("--classes", type=click.IntRange(min=1), help="Number of classes."),
        click.option("--shape", type=ShapeType(), metavar="CxHxW", help="One example's shape."),
        click.argument("model"),
    ):  # fmt: skip
        command = option(command)
    return command


def _training(command: CommandT) -> CommandT:
    """Add how it would be trained."""
    for option in (
        click.option("--freeze", multiple=True, metavar="PATTERN",
                     help="Parameters that are not trained; repeatable."),
        click.option("--optimizer", type=click.Choice(_OPTIMIZERS), default="sgd",
                     show_default=True),
        click.option("--loss", type=click.Choice(_LOSSES), default="cross_entropy",
                     show_default=True),
        click.option("--batch", type=click.IntRange(1, 65536), default=32, show_default=True,
                     help="Examples in a step."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def model() -> None:
    """Look at a model: can it be trained, how fast, and as a file."""


@model.command()
@click.argument("file", type=_FILE)
@_training
@options.json_output
def check(  # noqa: PLR0913 - one argument an option
    *, file: Path, batch: int, loss: str, optimizer: str, freeze: tuple[str, ...], as_json: bool
) -> None:
    """Say whether and how FILE.onnx can be trained.

    Exit code 0: it can; 1: it cannot, or the file is refused; 2: the command line makes no sense.
    """
    if file.suffix != ".onnx":
        message = f"{file}: the name of an ONNX file ends in .onnx"
        raise click.UsageError(message)
    request = model_choice.request_for(str(file))
    training = _as_training(batch, loss, optimizer, freeze)
    found = model_check.check_model(request, training, batch)
    click.echo(json.dumps(found) if as_json else model_check.as_text(file.name, found))
    if not found["trainable"]:
        raise SystemExit(1)


@model.command()
@_which
@_training
@click.option("--steps", type=click.IntRange(min=5), default=50, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@options.json_output
def bench(  # noqa: PLR0913 - one argument an option
    *,
    model: str,
    shape: tuple[int, ...] | None,
    classes: int | None,
    settings: tuple[str, ...],
    seed: int,
    batch: int,
    loss: str,
    optimizer: str,
    freeze: tuple[str, ...],
    steps: int,
    threads: int,
    as_json: bool,
) -> None:
    """Time a training step of MODEL here, with every backend that is installed.

    MODEL is a built-in name, package.module:factory, or a file that ends in .onnx.
    """
    request = model_choice.request_for(model, shape, classes, settings, seed)
    training = _as_training(batch, loss, optimizer, freeze)
    found = model_bench.bench_model(request, training, steps, threads)
    name = model_choice.described(request)
    click.echo(json.dumps(found) if as_json else model_bench.as_text(name, found))


@model.command()
@_which
@click.option("--to", "target", required=True, help="The file to write.",
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--runtime", metavar="VERSION", help="Oldest onnxruntime that must load it.")
@options.json_output
def export(  # noqa: PLR0913 - one argument an option
    *,
    model: str,
    shape: tuple[int, ...] | None,
    classes: int | None,
    settings: tuple[str, ...],
    seed: int,
    target: Path,
    runtime: str | None,
    as_json: bool,
) -> None:
    """Write MODEL with its first parameters as an .onnx file.

    MODEL is a built-in name, package.module:factory, or a file that ends in .onnx.
    """
    request = model_choice.request_for(model, shape, classes, settings, seed)
    model_export.export_model(request, target, runtime)
    size = target.stat().st_size
    if as_json:
        click.echo(json.dumps({"file": str(target), "bytes": size}))
    else:
        click.echo(f"{target} ({size} bytes)")


def _as_training(batch: int, loss: str, optimizer: str, freeze: tuple[str, ...]) -> Training:
    try:
        return Training.model_validate(
            {
                "batch_size": batch,
                "loss": loss,
                "optimizer": optimizer,
                "frozen": list(freeze),
                "learning_rate": 1e-3,
            },
            strict=False,
        )
    except ValueError as error:
        message = f"--freeze: {error}"
        raise click.UsageError(message) from error
