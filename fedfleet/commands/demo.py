"""``demo``: a broker, central, gateways and devices on this machine, one task, its result."""

import json
import sys
import time
from pathlib import Path

import click

from fedfleet import options
from fedfleet.screen import Screen
from fedfleet.testbed import report
from fedfleet.testbed.choices import RECIPES, Options
from fedfleet.testbed.demo import run_demo
from fedfleet.testbed.plan import PlanError
from fedfleet.testbed.processes import stopped_by_sigterm

_COUNT = click.IntRange(min=1)


class DataParameter(click.ParamType[tuple[str, Path | None]]):
    """``digits``, ``mnist=DIR`` or ``har=DIR``."""

    name = "data"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path | None]:
        """Return the kind and the folder; the folder must be there."""
        kind, equals, folder = str(value).partition("=")
        if kind not in RECIPES:
            self.fail(f"{kind!r} is not one of digits, mnist=DIR, har=DIR", param, ctx)
        if (kind == "digits") == bool(equals):
            self.fail(f"{value!r}: mnist and har need =DIR, digits has none", param, ctx)
        if equals and not Path(folder).is_dir():
            self.fail(f"{folder!r} is not a directory", param, ctx)
        return kind, Path(folder).resolve() if equals else None


@click.command()
@click.option("--devices", type=_COUNT, help="Device processes; default by data.")
@click.option("--regions", type=_COUNT, default=2, show_default=True, help="Gateway processes.")
@click.option("--rounds", type=_COUNT, help="Rounds to commit; default by data.")
@click.option("--min-clients", type=_COUNT, help="Updates that end a round; default all devices.")
@click.option("--model", help="Default by data.")
@click.option("--data", type=DataParameter(), default="digits", show_default=True,
              help="digits, mnist=DIR or har=DIR.")  # fmt: skip
@click.option("--codec", help="How updates are encoded; default by data.")
@options.codec_params
@click.option(
    "--downlink", help="Codec of new models on their way down; left out, they are sent whole."
)
@click.option("--alpha", type=click.FloatRange(min=0, min_open=True), default=0.5,
              show_default=True, help="Dirichlet split; smaller is more unlike.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--epochs", type=_COUNT, help="Epochs in each round; default by data.")
@click.option("--batch-size", type=_COUNT, help="Default by data.")
@click.option("--learning-rate", type=float, help="Default by data.")
@click.option("--broker", type=click.Choice(["embedded", "mosquitto"]), default="embedded",
              show_default=True)  # fmt: skip
@click.option("--backend", type=click.Choice(["onnx", "torch", "mixed"]), default="onnx",
              show_default=True, help="What devices train with; mixed: half each.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="The run's folder; default runs/TIMESTAMP.")  # fmt: skip
@click.option("--start-timeout", "start_timeout_s", type=float, default=120.0, show_default=True,
              metavar="SECONDS", help="How long all may take to be up.")  # fmt: skip
@click.option("--keep-running", is_flag=True, help="Leave the fleet running until Ctrl-C.")
@options.json_output
def demo(  # noqa: PLR0913 - one argument an option
    *,
    data: tuple[str, Path | None],
    devices: int | None,
    codec_params: dict[str, object] | None,
    out: Path | None,
    start_timeout_s: float,
    keep_running: bool,
    as_json: bool,
    **chosen: object,
) -> None:
    """Train with a whole fleet on this machine and show what it gave.

    All of it is processes of their own, started by the commands that you would type; their
    logs, states and the trained model are in the run's folder.
    """
    kind, path = data
    count = devices or RECIPES[kind].devices
    chosen["codec_params"] = codec_params or {}
    settings = Options(data=kind, data_path=path, devices=count, **chosen)  # type: ignore[arg-type]
    folder = (out or Path("runs", time.strftime("%Y%m%d-%H%M%S"))).resolve()

    def show(outcome: report.Outcome) -> None:
        click.echo(json.dumps(report.as_object(outcome)) if as_json else report.as_text(outcome))

    def stay(outcome: report.Outcome) -> None:
        show(outcome)
        screen.line("the fleet keeps running; Ctrl-C ends it")

    stream = sys.stderr if as_json else sys.stdout
    with stopped_by_sigterm(), Screen(stream) as screen:
        try:
            outcome = run_demo(
                settings,
                folder,
                screen,
                start_timeout_s=start_timeout_s,
                until_interrupted=stay if keep_running else None,
            )
        except PlanError as error:
            raise click.UsageError(str(error)) from error
    show(outcome)
