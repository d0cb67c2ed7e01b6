"""Environments that hold numpy and one version of onnxruntime, and nothing else."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_INSTALL_S = 600
_START_S = 30


@dataclass(frozen=True, slots=True)
class Runtime:
    """One version of onnxruntime.

    Attributes:
        name: For people.
        requirements: What pip installs.
        pythons: Versions that it has wheels for, the wanted one first.
    """

    name: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]


#: The oldest are those that the Pythons of Jetson boards get.
RUNTIMES = (
    Runtime("1.16", ("onnxruntime==1.16.3", "numpy<2"), ("3.9", "3.10", "3.8", "3.11")),
    Runtime("1.19", ("onnxruntime==1.19.2", "numpy"), ("3.10", "3.9", "3.8", "3.11", "3.12")),
    Runtime("1.23", ("onnxruntime==1.23.2", "numpy"), ("3.10", "3.11", "3.12", "3.13")),
    Runtime("newest", ("onnxruntime", "numpy"), ("3.13", "3.12", "3.11", "3.14")),
)


def find_python(versions: tuple[str, ...]) -> Path | None:
    """Return an interpreter of the first version that is here and can make environments."""
    for version in versions:
        for candidate in _candidates(version):
            if _works(candidate, version):
                return candidate
    return None


def _candidates(version: str) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which(f"python{version}")
    found = [Path(on_path)] if on_path else []
    found += sorted((root / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    return [*found, Path(sys.executable)]


def _works(python: Path, version: str) -> bool:
    # pyenv's shims are on the path for versions that are not chosen, and then only complain.
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        told = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=_START_S, check=False
        )
    except OSError:
        return False
    return told.returncode == 0 and told.stdout.strip() == version


def make(runtime: Runtime, python: Path, folder: Path) -> Path:
    """Return the interpreter of the runtime's environment, made when it is absent.

    Raises:
        subprocess.CalledProcessError: venv or pip failed; its own text is on stderr.
    """
    inside = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = " ".join(runtime.requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return inside
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True, timeout=_INSTALL_S)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [str(inside), *install, *runtime.requirements]
    # A package that is built from source would prove nothing about the wheels that devices get.
    subprocess.run([*command, "--only-binary=:all:"], check=True, timeout=_INSTALL_S)
    stamp.write_text(wanted)
    return inside
