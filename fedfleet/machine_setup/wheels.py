"""Which version is to be installed, and from where."""

import hashlib
import re
from importlib.metadata import version
from pathlib import Path

from fedfleet.machine_setup.actions import Source
from fedfleet.machine_setup.layout import SetupError

_WHEEL = re.compile(r"fedfleet-(?P<version>[A-Za-z0-9.+!_]+)-[^-]+-[^-]+-[^-]+\.whl")


def find_source(wheel: Path | None, folder: Path | None, asked: str | None) -> Source:
    """Return where a version comes from.

    Args:
        wheel: Its wheel, if a person has named it.
        folder: Folder of wheels, if no network is to be used; may hold the wheel itself.
        asked: The version, if a person has named it; default: that of the wheel, or of this one.

    Raises:
        SetupError: There is no such wheel, it is not one of fedfleet, or there are several.
    """
    if wheel is None and folder is not None:
        wheel = _wheel_in(folder, asked)
    if wheel is None:
        return Source(asked or version("fedfleet"), folder=folder)
    if not wheel.is_file():
        message = f"wheel: {wheel}: no such file"
        raise SetupError(message)
    found = version_of(wheel)
    if asked is not None and asked != found:
        message = f"wheel: {wheel.name} has version {found}, not {asked}"
        raise SetupError(message)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Source(found, wheel.resolve(), folder.resolve() if folder else None, digest)


def version_of(wheel: Path) -> str:
    """Return the version that a wheel's name tells.

    Raises:
        SetupError: It is not a wheel of fedfleet.
    """
    match = _WHEEL.fullmatch(wheel.name)
    if match is None:
        message = f"wheel: {wheel.name} is not named like a wheel of fedfleet"
        raise SetupError(message)
    return match["version"]


def _wheel_in(folder: Path, asked: str | None) -> Path:
    if not folder.is_dir():
        message = f"from: {folder}: no such folder"
        raise SetupError(message)
    wheels = sorted(path for path in folder.glob("fedfleet-*.whl") if _WHEEL.fullmatch(path.name))
    if asked is not None:
        wheels = [path for path in wheels if version_of(path) == asked]
    if len(wheels) != 1:
        found = ", ".join(path.name for path in wheels) or "none"
        message = f"from: {folder} must hold one wheel of fedfleet {asked or ''}: it has {found}"
        raise SetupError(message)
    return wheels[0]
