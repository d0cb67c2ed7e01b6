"""``chaos``: kill, stop and cut off a running fleet at random, then check that nothing is lost."""

import json
import secrets
import shutil
import sys
import time
from pathlib import Path

import click

from fedfleet import logs, options
from fedfleet.chaos import report
from fedfleet.chaos.choices import ChaosOptions
from fedfleet.screen import Screen
from fedfleet.testbed.plan import PlanError
from fedfleet.testbed.processes import stopped_by_sigterm

_COUNT = click.IntRange(min=1)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--broker", type=click.Choice(["mosquitto", "embedded"]), default="mosquitto",
              show_default=True, help="Mosquitto runs without persistence.")  # fmt: skip
@click.option("--devices", type=_COUNT, default=4, show_default=True)
@click.option("--regions", type=_COUNT, default=2, show_default=True)
@click.option("--model", default="mlp", show_default=True)
@click.option("--codec", default="raw-f32", show_default=True)
@click.option("--update-mb", type=_ABOVE_0, default=1.0, show_default=True,
              help="Least MiB of an update as float32; decides how wide an mlp is.")  # fmt: skip
@click.option("--kills", type=click.IntRange(min=0), default=200, show_default=True,
              help="Go on until so many programs were killed,")  # fmt: skip
@click.option("--updates", type=click.IntRange(min=0), default=300, show_default=True,
              help="and so many updates were accepted,")  # fmt: skip
@click.option("--seconds", type=_ABOVE_0, default=600.0, show_default=True,
              help="but not longer than this.")  # fmt: skip
@click.option("--pace", "pace_s", type=_ABOVE_0, default=0.6, show_default=True,
              metavar="SECONDS", help="Mean time between faults, at least.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), help="Default: one that is printed.")
@click.option("--training", type=click.Choice(["real", "drill", "both"]), default="both",
              show_default=True, help="A drill sends zeros of the same size.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="The run's folder; default runs/TIMESTAMP-chaos.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the folder although the promise held.")
@options.json_output
def chaos(
    *, out: Path | None, keep: bool, as_json: bool, seed: int | None, **chosen: object
) -> None:
    """Kill a running fleet at random while it trains, then check that nothing is lost.

    A broker, central, gateways and devices run as processes of their own; each session goes
    through a proxy. From one seed, programs are killed and started again, stopped and continued,
    cut off, held up and slowed down. Then all is healed, the last task ends, and everybody's
    books are audited: accepted = receipted, none lost, none counted twice, each model
    aggregated again. Exit code 1: the promise was broken, or not enough happened in the time.
    """
    from fedfleet.chaos.run import ChaosRun  # noqa: PLC0415 - loads all programs

    logs.configure("error", "console")  # that the broker dies is what is wanted
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    settings = ChaosOptions(seed=seed, **chosen)  # type: ignore[arg-type]
    folder = (out or Path("runs", time.strftime("%Y%m%d-%H%M%S-chaos"))).resolve()
    stream = sys.stderr if as_json else sys.stdout
    with stopped_by_sigterm(), Screen(stream) as screen:
        screen.line(f"--seed {seed}; logs are in {folder}")
        try:
            outcome = ChaosRun(settings, folder, screen).run()
        except PlanError as error:
            raise click.UsageError(str(error)) from error
    click.echo(json.dumps(report.as_object(outcome)) if as_json else report.as_text(outcome))
    if outcome.broken or outcome.missed:
        raise SystemExit(1)
    if not keep:
        shutil.rmtree(folder)
