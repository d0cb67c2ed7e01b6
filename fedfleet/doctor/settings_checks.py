"""The settings: each fits, none is unknown, and the environment has no name that nobody reads."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from device_agent.adapters.policy_file import PolicyError, load_policy
from device_agent.settings import DeviceSettings
from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.subject import SETTINGS, Program
from transport.broker_url import BrokerUrlError, parse_broker_url
from transport.settings import ENVIRONMENT_PREFIX, ConnectionSettings, SettingsError

_CHECK = "settings"


def load(
    program: Program, config: Path | None, flags: Mapping[str, Any]
) -> tuple[ConnectionSettings | None, list[Finding]]:
    """Return the settings as the program would read them, if they fit, and what was found."""
    try:
        settings = SETTINGS[program].load(config, **flags)
    except SettingsError as error:
        advice = f"correct it in {_places(config)}; {program}'s settings: {_names(program)}"
        return None, [failed(_CHECK, _without_passwords(str(error)), advice)]
    problems = [finding for url in _urls(settings) if (finding := _judge_url(settings, url))]
    seen = f"all fit, from {_places(config)}"
    return settings, problems or [ok(_CHECK, seen)]


def judge_environment(program: Program, names: Iterable[str]) -> list[Finding]:
    """Name what looks like a mistyped setting in the environment; such a name is never read."""
    known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in SETTINGS[program].model_fields]
    found = []
    for name in sorted(set(names) - set(known)):
        close = get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(ENVIRONMENT_PREFIX) and close:
            seen = f"{name} is set, and no setting of {program} has that name"
            found.append(warning(f"{_CHECK}.environment", seen, f"did you mean {close[0]}?"))
    return found


def examine_policy(settings: ConnectionSettings) -> list[Finding]:
    """Read a device's policy and look whether it has examples at all."""
    if not isinstance(settings, DeviceSettings):
        return []
    found = [ok("settings.policy", f"{settings.policy or 'no file: nothing is limited'}")]
    try:
        load_policy(settings.policy)
    except (PolicyError, OSError) as error:
        found = [failed("settings.policy", str(error), "correct the file, or leave policy out")]
    if not settings.data:
        advice = "name what it shall train on: --data npz=FILE, or data = [...] in its file"
        found.append(failed("settings.data", "no data source is given", advice))
    return found


def _judge_url(settings: ConnectionSettings, url: str) -> Finding | None:
    try:
        address = parse_broker_url(url)
        address.with_tls_files(settings.ca_file, settings.cert_file, settings.key_file)
    except BrokerUrlError as error:
        advice = "correct the broker's URL, or the TLS files that go with it"
        return failed(_CHECK, _without_passwords(str(error)), advice)
    return None


def _urls(settings: ConnectionSettings) -> list[str]:
    uplink = getattr(settings, "uplink", None)
    return [settings.broker, *([uplink] if uplink else [])]


def _places(config: Path | None) -> str:
    return f"{config}, the flags and {ENVIRONMENT_PREFIX}*" if config else "flags, environment"


def _names(program: Program) -> str:
    return ", ".join(SETTINGS[program].model_fields)


def _without_passwords(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)
