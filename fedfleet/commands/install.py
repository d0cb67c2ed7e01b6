"""``install``: set a machine up so that systemd runs one program on it."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from device_agent.adapters.profile_choice import AUTO, choose_profile
from fedfleet import options
from fedfleet.machine_setup import settings_text, terminal
from fedfleet.machine_setup.actions import Action
from fedfleet.machine_setup.layout import PROGRAMS, Program, SetupError
from fedfleet.machine_setup.machine import Machine
from fedfleet.machine_setup.plan import Seen, plan_install
from fedfleet.machine_setup.request import Request, wanted
from fedfleet.machine_setup.service import Service
from fedfleet.machine_setup.settings_text import Setting
from fedfleet.submission import SubmissionError, setting
from firmware_profiles import ProfileError
from schemas.profiles import FirmwareProfile
from transport.settings import CREDENTIALS

_FILE = click.Path(path_type=Path, dir_okay=False)
_SETTINGS = ("region", "broker", "uplink", "profile")


@click.command()
@click.argument("name", type=click.Choice(list(PROGRAMS)))
@click.option("--region", help="Of a device or a gateway.")
@click.option("--broker", metavar="URL", help="A password in it goes to a file of its own.")
@click.option("--uplink", metavar="URL", help="Of a gateway: the broker that central listens on.")
@click.option("--id", "device_id", help="Of a device; default: the host's name.")
@click.option(
    "--profile",
    metavar="NAME",
    help="Of a device; limits and GPU follow from it. Default: what this machine is found to be.",
)
@click.option(
    "--data", multiple=True, metavar="SOURCE", help="Of a device or central; repeatable."
)
@click.option(
    "--set", "others", multiple=True, metavar="NAME=VALUE", help="Any other setting; repeatable."
)
@click.option("--password-file", type=_FILE, help="The broker's password in its first line.")
@click.option("--uplink-password-file", type=_FILE, help="The same, for --uplink.")
@click.option("--ca-file", type=_FILE, help="The CA that signed the broker's certificate.")
@click.option("--cert-file", type=_FILE, help="This program's certificate.")
@click.option("--key-file", type=_FILE, help="Its private key.")
@click.option("--wheel", type=_FILE, help="A wheel of fedfleet; default: from pip's index.")
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of all wheels that it needs; no network is used then.",
)
@click.option("--version", help="Of fedfleet; default: the wheel's, or that of this command.")
@click.option("--extra", "extras", multiple=True, help="Of the distribution: torch, fast.")
@click.option("--python", help="Interpreter to install with; default: this one.")
@click.option("--overwrite-settings", is_flag=True, help="Replace a settings file that is there.")
@click.option(
    "--wait-s", type=click.FloatRange(min=0), default=0.0, help="Wait until it is healthy."
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Set a tree of files up instead of this machine; starts nothing.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@options.json_output
def install(
    *,
    name: str,
    root: Path,
    dry_run: bool,
    as_json: bool,
    wait_s: float,
    **flags: Any,  # noqa: ANN401
) -> None:
    """Set this machine up to run a device, a gateway or central at every boot.

    It makes a virtual environment /opt/fedfleet/VERSION, /etc/fedfleet/NAME.toml, and a systemd
    unit that runs as a user made up for it (DynamicUser). Run again, it does only what is
    missing; a settings file that is there is kept.
    """
    program, machine = PROGRAMS[name], Machine(root.resolve())
    seen = machine.look()
    profile = _profile(program, flags["profile"], seen, root) if name == "device" else None
    actions = plan_install(wanted(program, replace(_request(name, flags), profile=profile)), seen)
    if not dry_run and actions:
        machine.check_rights()
        terminal.outlive()
        for action in actions:
            terminal.say(str(action))
            machine.perform(action)
    _report(program, actions, dry_run=dry_run, as_json=as_json)
    if wait_s and machine.is_live and not dry_run:
        _wait(program, machine, wait_s)


def _profile(program: Program, asked: str | None, seen: Seen, root: Path) -> FirmwareProfile:
    """Return the profile that is asked for, or in the settings that are kept, or detected."""
    kept = settings_text.read(program, seen.files.get(program.settings, "")).get("profile")
    try:
        return choose_profile(asked or str(kept or AUTO), root).profile
    except ProfileError as error:
        message = f"profile: {error}"
        raise SetupError(message) from error


def _request(name: str, flags: dict[str, Any]) -> Request:
    settings = _others(flags["others"])
    for setting_name, flag in (("id", "device_id"), *((plain, plain) for plain in _SETTINGS)):
        if flags[flag] is not None:
            settings[setting_name] = flags[flag]
    if flags["data"]:
        settings["eval_data" if name == "central" else "data"] = flags["data"]
    return Request(
        settings=settings,
        credential_files={file: flags[file] for file in CREDENTIALS if flags[file] is not None},
        wheel=flags["wheel"],
        folder=flags["folder"],
        version=flags["version"],
        python=flags["python"] or str(getattr(sys, "_base_executable", sys.executable)),
        extras=frozenset(flags["extras"]),
        overwrite_settings=flags["overwrite_settings"],
    )


def _others(pairs: tuple[str, ...]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for pair in pairs:
        try:
            name, value = setting(pair)
        except SubmissionError as error:
            raise click.UsageError(str(error)) from error
        if not isinstance(value, (str, int, float, list)):
            message = f"--set {pair}: a table; write it into the settings file"
            raise click.UsageError(message)
        found[name] = value
    return found


def _report(program: Program, actions: list[Action], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        done = [str(action) for action in actions]
        click.echo(json.dumps({"name": program.name, "actions": done, "dry_run": dry_run}))
    elif not actions:
        click.echo(f"{program.name}: everything is in place, nothing was changed")
    elif dry_run:
        click.echo("\n".join(f"would {action}" for action in actions))
    else:
        click.echo(f"{program.name}: set up; it runs as a user made up by systemd (DynamicUser)")


def _wait(program: Program, machine: Machine, wait_s: float) -> None:
    service = Service(program, machine)
    wrong = service.wait_healthy(wait_s)
    if wrong is not None:
        log = "\n".join(f"    {line}" for line in service.log_lines())
        message = f"not healthy after {wait_s:.0f} s: {wrong}\nThe last lines of its log:\n{log}"
        raise SetupError(message)
