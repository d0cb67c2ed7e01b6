"""``profiles``: what is known of families of devices, and which of them a machine is."""

import json
from pathlib import Path

import click
import yaml

import firmware_profiles
from device_agent.adapters.machine_files import read_machine
from device_agent.core.detection import detect as find
from fedfleet import options
from fedfleet.errors import FleetError
from fedfleet.tables import size, table
from schemas.profiles import FirmwareProfile, Limits

COLUMNS = ("profile", "computes on", "threads", "memory", "model", "ceiling", "battery", "is for")

_ROOT = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(path_type=Path)


class ProfilesError(FleetError):
    """A profile is not known or does not fit."""


@click.group()
def profiles() -> None:
    """List, show, detect or check firmware profiles."""


@profiles.command("list")
@options.json_output
def list_(*, as_json: bool) -> None:
    """List the profiles that come with fedfleet."""
    found = firmware_profiles.load_all()
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in found]))
    else:
        click.echo(table(COLUMNS, [_row(one) for one in found]))


@profiles.command()
@click.argument("name")
@options.json_output
def show(*, name: str, as_json: bool) -> None:
    """Show all that is known of one family, with sources; NAME may be a file, FILE.yaml."""
    try:
        is_file = name.endswith((".yaml", ".yml"))
        found = firmware_profiles.read(Path(name)) if is_file else firmware_profiles.load(name)
    except firmware_profiles.ProfileError as error:
        raise ProfilesError(str(error)) from error
    fields = found.model_dump(mode="json", exclude_none=True)
    click.echo(json.dumps(fields) if as_json else yaml.safe_dump(fields, sort_keys=False).rstrip())


@profiles.command()
@click.option("--root", type=_ROOT, default=Path("/"), help="Where another machine's files are.")
@options.json_output
def detect(*, root: Path, as_json: bool) -> None:
    """Say which profile this machine has, and why.

    Exit code 0 even where only its architecture is known: a device runs with that too.
    """
    seen = read_machine(root)
    found = find(seen, firmware_profiles.load_all())
    if as_json:
        told = {
            "profile": found.name,
            "certain": found.is_certain,
            "reason": found.reason,
            "near": list(found.near),
            "machine": {
                "model": seen.model,
                "compatible": list(seen.compatible),
                "architecture": seen.architecture,
                "l4t": seen.l4t,
                "memory_bytes": seen.memory_bytes,
                "cores": seen.cores,
            },
        }
        click.echo(json.dumps(told))
    else:
        click.echo(f"{found.name}: {found.reason}")


@profiles.command()
@click.argument("paths", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@options.json_output
def validate(*, paths: tuple[Path, ...], as_json: bool) -> None:
    """Check profiles of your own; exit code 1 when one of them does not fit."""
    faults = {str(path): _fault(path) for path in paths}
    if as_json:
        found = [{"file": name, "fits": not why, "error": why} for name, why in faults.items()]
        click.echo(json.dumps(found))
    else:
        for name, why in faults.items():
            click.echo(why or f"{name}: fits")
    if any(faults.values()):
        raise SystemExit(1)


def _fault(path: Path) -> str | None:
    try:
        firmware_profiles.read(path)
    except firmware_profiles.ProfileError as error:
        return str(error)
    return None


def _row(one: FirmwareProfile) -> tuple[str, ...]:
    limits: Limits = one.limits
    ceiling, floor = limits.temperature_ceiling_celsius, limits.battery_floor_percent
    return (
        one.family,
        ",".join(one.providers),
        f"{one.threads} of {limits.threads}" if limits.threads else str(one.threads),
        size(limits.memory_bytes) if limits.memory_bytes else "-",
        size(limits.model_bytes) if limits.model_bytes else "-",
        f"{ceiling:g} C" if ceiling is not None else "-",
        f"{floor} %" if floor is not None else "-",
        one.description,
    )
