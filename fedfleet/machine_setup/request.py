"""From what a person types to what is wanted: settings checked, passwords taken out of URLs."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from fedfleet.machine_setup.drop_ins import Limits, limits_of
from fedfleet.machine_setup.layout import Program, SetupError
from fedfleet.machine_setup.plan import Wanted
from fedfleet.machine_setup.settings_text import Setting
from fedfleet.machine_setup.wheels import find_source
from schemas.profiles import FirmwareProfile
from transport.broker_url import BrokerUrlError, parse_broker_url
from transport.settings import CREDENTIALS, SettingsError, check_settings

_CLASSES = {
    "device": ("device_agent.settings", "DeviceSettings"),
    "gateway": ("regional_gateway.settings", "GatewaySettings"),
    "central": ("central.settings", "CentralSettings"),
}
_MAX_ID = 32


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed.

    Attributes:
        settings: Of the program, by name.
        credential_files: Files with the password and certificates, by setting.
        wheel: A wheel of fedfleet.
        folder: Folder of wheels.
        version: Of fedfleet.
        python: Interpreter of the virtual environment.
        extras: Beyond the program's own.
        overwrite_settings: Whether a settings file may be replaced.
        profile: The device's firmware profile, which limits its unit.
    """

    settings: Mapping[str, Setting]
    credential_files: Mapping[str, Path]
    wheel: Path | None
    folder: Path | None
    version: str | None
    python: str
    extras: frozenset[str] = field(default=frozenset())
    overwrite_settings: bool = False
    profile: FirmwareProfile | None = None


def wanted(program: Program, request: Request) -> Wanted:
    """Return what is to be on the machine.

    Raises:
        SetupError: Something does not fit, or a file cannot be read.
    """
    settings, credentials = _without_passwords(request.settings)
    credentials |= _read(request.credential_files)
    defaults: dict[str, Setting] = {}
    if program.name == "device" and "id" not in settings:
        defaults["id"] = default_id(socket.gethostname())
    _check(program, {**defaults, **settings})
    profile = request.profile
    return Wanted(
        program=program,
        source=find_source(request.wheel, request.folder, request.version),
        python=request.python,
        settings=settings,
        defaults=defaults,
        credentials=credentials,
        profile=None if profile is None else profile.family,
        limits=Limits() if profile is None else limits_of(profile),
        extras=request.extras,
        overwrite_settings=request.overwrite_settings,
    )


def default_id(host_name: str) -> str:
    """Return a host's name as an id of this protocol: what does not fit becomes a hyphen."""
    name = re.sub(r"[^a-z0-9]+", "-", host_name.partition(".")[0].lower()).strip("-")
    if not name:
        message = f"id: the host's name {host_name!r} gives none; give --id"
        raise SetupError(message)
    return name[:_MAX_ID].rstrip("-")


def _without_passwords(
    settings: Mapping[str, Setting],
) -> tuple[dict[str, Setting], dict[str, str]]:
    """Return the settings without the passwords of URLs, and these as credentials."""
    kept, credentials = dict(settings), {}
    for name, file_setting in (("broker", "password_file"), ("uplink", "uplink_password_file")):
        url = kept.get(name)
        if not isinstance(url, str):
            continue
        try:
            parse_broker_url(url)
        except BrokerUrlError as error:
            message = f"{name}: {error}"
            raise SetupError(message) from error
        parts = urlsplit(url)
        if parts.password:
            host = parts.netloc.rpartition("@")[2]
            user = parts.netloc.rpartition("@")[0].partition(":")[0]
            kept[name] = urlunsplit(parts._replace(netloc=f"{user}@{host}"))
            credentials[CREDENTIALS[file_setting]] = unquote(parts.password) + "\n"
    return kept, credentials


def _read(files: Mapping[str, Path]) -> dict[str, str]:
    return {CREDENTIALS[setting]: _text(setting, path) for setting, path in files.items()}


def _text(setting: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        message = f"{setting}: {error}"
        raise SetupError(message) from error


def _check(program: Program, settings: Mapping[str, Setting]) -> None:
    module, name = _CLASSES[program.name]
    try:
        check_settings(getattr(import_module(module), name), settings)
    except SettingsError as error:
        raise SetupError(str(error)) from error
