"""The settings file of an installed program: written once, then a person's own."""

import importlib
import json
import sys
from collections.abc import Mapping, Sequence

from fedfleet.machine_setup.layout import Program, SetupError

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

Setting = str | int | float | bool | Sequence[str]


def render(program: Program, settings: Mapping[str, Setting]) -> str:
    """Return the text of a new settings file."""
    lines = [
        f"# Settings of fedfleet {program.name}, as in fedfleet {program.name} --help.",
        f"# After a change: systemctl restart {program.unit}",
        *(f"{name} = {_toml(value)}" for name, value in sorted(settings.items())),
    ]
    return "\n".join(lines) + "\n"


def read(program: Program, text: str) -> dict[str, object]:
    """Return the settings in the text of a file.

    Raises:
        SetupError: It is not TOML.
    """
    try:
        settings: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{program.settings} is not TOML: {error}; correct it, or move it away"
        raise SetupError(message) from error
    return settings


def check_kept(program: Program, text: str, settings: Mapping[str, Setting]) -> None:
    """Check that a settings file that is there already says what is asked for.

    Raises:
        SetupError: It says something else; it is never overwritten silently.
    """
    present = read(program, text)
    wrong = [
        f"{name} is {_shown(present.get(name))} there, {_shown(value)} here"
        for name, value in sorted(settings.items())
        if present.get(name) != _plain(value)
    ]
    if wrong:
        message = (
            f"{program.settings} is kept and says otherwise: {'; '.join(wrong)}. "
            "Edit it, or give --overwrite-settings"
        )
        raise SetupError(message)


def kept(text: str, defaults: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return defaults, with the values that a file has for them: an id above all stays."""
    try:
        present = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        present = {}
    return {name: present.get(name, value) for name, value in defaults.items()}


def _plain(value: Setting) -> object:
    return value if isinstance(value, (str, int, float)) else list(value)


def _shown(value: object) -> str:
    return "not set" if value is None else repr(value)


def _toml(value: Setting) -> str:
    if isinstance(value, (str, bool, int, float)):
        return json.dumps(value, ensure_ascii=False)  # the same text in TOML, for these
    return f"[{', '.join(json.dumps(item, ensure_ascii=False) for item in value)}]"
