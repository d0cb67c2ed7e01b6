"""Print what the extras of pyproject.toml need, one requirement a line; torch is left out.

``requirements.py device gateway``: the dependencies of fedfleet itself and of both extras. The
images install them in a layer of their own, torch from an index of the builder's choice.
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """Return the requirements, sorted, each once.

    Args:
        pyproject: Text of the file.
        extras: Names of optional dependencies.

    Raises:
        KeyError: There is no such extra.
    """
    project = tomllib.loads(pyproject)["project"]
    found = set(project["dependencies"])
    for extra in extras:
        found.update(project["optional-dependencies"][extra])
    return sorted(line for line in found if _name(line) not in {"torch", project["name"]})


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    return match[0].lower() if match else requirement


if __name__ == "__main__":
    text = Path("pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("\n".join(requirements(text, sys.argv[1:])) + "\n")
