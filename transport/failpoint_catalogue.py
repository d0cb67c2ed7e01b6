"""Which failpoints there are: the names, who comes by, and what is durable there.

The list is data, ``failpoints.toml`` beside this file; it is read only when it is asked for.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from transport.failpoints import VARIABLE, Armed, FailpointError, arm

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

PROGRAMS = ("central", "gateway", "device")


@dataclass(frozen=True, slots=True)
class Place:
    """One failpoint.

    Attributes:
        name: As in the source and in the variable.
        programs: Who comes by.
        edge: What is and what is not yet durable there, in one line.
    """

    name: str
    programs: tuple[str, ...]
    edge: str


def catalogue() -> tuple[Place, ...]:
    """Return every failpoint, by name."""
    text = files("transport").joinpath("failpoints.toml").read_text(encoding="utf-8")
    sections: dict[str, dict[str, str]] = tomllib.loads(text)
    found = [
        Place(name, tuple(programs.split()), edge)
        for programs, places in sections.items()
        for name, edge in places.items()
    ]
    return tuple(sorted(found, key=lambda place: place.name))


def arm_program(program: str, environment: Mapping[str, str]) -> None:
    """Arm what the environment names, in one of the ``PROGRAMS``; mostly nothing.

    Raises:
        FailpointError: The variable is not understood, or the program never comes by there.
    """
    text = environment.get(VARIABLE)
    if not text:
        arm(None)
        return
    armed = Armed.parse(text)
    here = [place.name for place in catalogue() if program in place.programs]
    if armed.name not in here:
        message = (
            f"{VARIABLE}: {armed.name!r} is none of the {len(here)} failpoints of {program}; "
            "'fedfleet failpoints' lists them"
        )
        raise FailpointError(message)
    arm(armed)
