"""One YAML per hardware and firmware family: recognition, limits and defaults.

The model of a profile is ``schemas.profiles``; it is checked whenever one is read.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from schemas.errors import MessageError
from schemas.profiles import FirmwareProfile, parse_profile

#: What is taken where no other profile fits; it limits nothing.
GENERIC = "generic"
_SUFFIX = ".yaml"
#: With libyaml, where PyYAML was built with it: ten times as fast, which a small board notices.
_FastestLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 64 * 1024
#: PyYAML takes many seconds for a thousand levels.
_MAX_DEPTH = 16


class ProfileError(ValueError):
    """A profile is not known, cannot be read or does not fit; the text says which and why."""


@cache
def names() -> tuple[str, ...]:
    """Return the names of the profiles that come with the package, in alphabetical order."""
    found = (file.name for file in files(__name__).iterdir())
    return tuple(sorted(name[: -len(_SUFFIX)] for name in found if name.endswith(_SUFFIX)))


@cache
def load(name: str) -> FirmwareProfile:
    """Return a profile by its name.

    Raises:
        ProfileError: There is none of that name, or its file does not fit.
    """
    if name not in names():
        message = f"profile: {name!r} is not known; there is {', '.join(names())}"
        raise ProfileError(message)
    text = files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    return parse(text, name)


def load_all() -> tuple[FirmwareProfile, ...]:
    """Return every profile that comes with the package."""
    return tuple(load(name) for name in names())


def read(path: Path) -> FirmwareProfile:
    """Return the profile in a file of one's own.

    Raises:
        ProfileError: The file cannot be read, or what is in it does not fit.
    """
    try:
        data = path.read_bytes()
        return parse(data.decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        message = f"profile {path}: {error}"
        raise ProfileError(message) from error


def parse(text: str, origin: str) -> FirmwareProfile:
    """Return the profile in a text.

    Args:
        text: YAML, at most 64 KiB and 16 levels deep, without aliases.
        origin: What an error calls it.

    Raises:
        ProfileError: It is not YAML, or does not fit.
    """
    if len(text) > _MAX_BYTES:
        message = f"profile {origin}: {len(text)} characters, at most {_MAX_BYTES} are allowed"
        raise ProfileError(message)
    try:
        return parse_profile(_table(text))
    except (yaml.YAMLError, MessageError) as error:
        message = f"profile {origin}: {' '.join(str(error).split())}"
        raise ProfileError(message) from error


def _table(text: str) -> object:
    """Return what a text holds; aliases, by which a short one could grow without bound, are none.

    Raises:
        yaml.YAMLError: It is not YAML, has an alias, is too deep, or gives a key twice.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            message = f"{_line(event)}: deeper than {_MAX_DEPTH} levels"
            raise yaml.YAMLError(message)
        if isinstance(event, yaml.AliasEvent):
            message = f"{_line(event)}: aliases are not allowed"
            raise yaml.YAMLError(message)
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


class _Loader(_FastestLoader):  # type: ignore[misc, valid-type]
    """PyYAML's safe one, which would silently take the last of two values of a key."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    keys = [key.value for key, _ in node.value]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        message = f"{_line(node)}: {twice}: given twice"
        raise yaml.YAMLError(message)
    made: dict[object, object] = loader.construct_mapping(node, deep=True)
    return made


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _line(part: yaml.Event | yaml.Node) -> str:
    return f"line {part.start_mark.line + 1}" if part.start_mark else "a line"
