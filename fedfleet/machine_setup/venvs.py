"""Virtual environments below /opt/fedfleet: one a version, whole or not there."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fedfleet.machine_setup.actions import MakeVenv
from fedfleet.machine_setup.layout import MARKER, SetupError
from fedfleet.machine_setup.plan import Venv

Run = Callable[[Sequence[str]], None]

_TAIL_LINES = 8
#: The services read what root installs, however careful root's own umask is.
UMASK = 0o022


def run_loudly(command: Sequence[str]) -> None:
    """Run a command.

    Raises:
        SetupError: It fails; the text ends with what it said last.
    """
    done = subprocess.run(  # noqa: S603 - a fixed program with checked arguments
        command, capture_output=True, text=True, check=False, umask=UMASK
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL_LINES:])
        message = f"{' '.join(command)} failed ({done.returncode}):\n{said}"
        raise SetupError(message)


def read(folder: Path) -> Venv | None:
    """Return what is installed in a folder, or None when it is not whole."""
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return Venv(frozenset(found["extras"]), found["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make(action: MakeVenv, folder: Path, run: Run = run_loudly) -> None:
    """Install a version, or more of its extras.

    The environment that this very program runs from is completed, any other that is not whole
    is begun anew.

    Raises:
        SetupError: Python or pip fails; what was begun is removed.
    """
    is_own = Path(sys.prefix).resolve() == folder.resolve()
    is_whole = read(folder) is not None
    try:
        if not is_own and not is_whole:
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            run([action.python, "-m", "venv", str(folder)])
        run(pip_command(action, folder))
    except SetupError:
        if not is_own and not is_whole:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    marker = {"extras": list(action.extras), "sha256": action.source.sha256}
    (folder / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")


def pip_command(action: MakeVenv, folder: Path) -> list[str]:
    """Return the command that installs a version into a folder."""
    source = action.source
    what = str(source.wheel) if source.wheel else "fedfleet"
    requirement = f"{what}[{','.join(action.extras)}]"
    if source.wheel is None:
        requirement += f"=={source.version}"
    offline = ["--no-index", "--find-links", str(source.folder)] if source.folder else []
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    return [*pip, "--disable-pip-version-check", *offline, requirement]
