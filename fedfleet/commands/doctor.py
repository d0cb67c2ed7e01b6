"""``doctor``: find what keeps a program from working here, and say what to do."""

import os
from pathlib import Path

import click

from fedfleet import options
from fedfleet.doctor.examination import Request, examine
from fedfleet.doctor.finding import worst
from fedfleet.doctor.rendering import as_json as report
from fedfleet.doctor.rendering import show
from fedfleet.doctor.subject import PROGRAMS, SETTINGS, Program

#: Where ``fedfleet install`` puts the settings of a program, its credentials, and its state.
INSTALLED, STATES = Path("/etc/fedfleet"), Path("/var/lib")


@click.command()
@click.argument("program", type=click.Choice(PROGRAMS), required=False)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file; flags and FEDFLEET_* in the environment come first.",
)
@click.option("--broker", metavar="URL", help="As the program's own flag; so are the next ones.")
@click.option("--uplink", metavar="URL", help="A gateway's broker towards central.")
@click.option("--region", help="Region of a gateway or device.")
@click.option("--id", help="The device's id.")
@click.option("--data", multiple=True, metavar="SOURCE", help="A device's examples; repeatable.")
@click.option("--profile", metavar="NAME", help="A device's firmware profile.")
@click.option("--backend", type=click.Choice(["auto", "onnx", "torch"]))
@click.option(
    "--provider", "providers", multiple=True, type=click.Choice(["cpu", "cuda", "tensorrt"])
)
@click.option("--state-dir", type=click.Path(path_type=Path))
@click.option("--mqtt-protocol", type=click.Choice(["auto", "5", "3.1.1"]))
@click.option(
    "--answer-s",
    type=click.FloatRange(0.1, 10.0),
    default=3.0,
    show_default=True,
    help="How long to wait for one answer of a broker.",
)
@options.json_output
def doctor(
    *,
    program: Program | None,
    config: Path | None,
    answer_s: float,
    as_json: bool,
    **flags: object,
) -> None:
    """Examine the machine, the settings and the broker of a device, a gateway or central.

    Without a name: the one program that is installed here, with its settings. It may run beside
    the program, which it does not disturb. Each line is ok, a warning or a failure with what to
    do. Exit code 1: something failed.
    """
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if program is None:
        program, config = _installed(config)
        given.setdefault("state_dir", STATES / f"fedfleet-{program}")
        os.environ.setdefault("CREDENTIALS_DIRECTORY", str(INSTALLED / "credentials" / program))
    if unknown := _foreign(program, given):
        message = f"{program} has no setting {', '.join(sorted(unknown))}"
        raise click.UsageError(message)
    findings = examine(Request(program, config, given, answer_s))
    if as_json:
        click.echo(report(program, findings))
    else:
        show(program, findings)
    raise SystemExit(1 if worst(findings) == "failed" else 0)


def _installed(config: Path | None) -> tuple[Program, Path]:
    """Return the one program that is installed on this machine, and its settings file."""
    found = [name for name in PROGRAMS if (INSTALLED / f"{name}.toml").is_file()]
    if len(found) != 1 or config is not None:
        message = f"say which program to examine: {', '.join(PROGRAMS)}"
        raise click.UsageError(message)
    return found[0], INSTALLED / f"{found[0]}.toml"


def _foreign(program: Program, given: dict[str, object]) -> set[str]:
    return set(given) - set(SETTINGS[program].model_fields)
