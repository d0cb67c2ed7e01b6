"""Wheels for the container: this tree's, later versions that work or do not, and the rest."""

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

from tests.deploy.systemd.container import PYTHON, SkipError, run

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
#: What makes a version bad, by the file that it is appended to.
CRASHES = ("device_agent/settings.py", 'raise RuntimeError("this version is broken")')
HANGS = ("device_agent/settings.py", "import time; time.sleep(3600)")


def build(project: Path, target: Path) -> Path:
    """Return a wheel of this tree."""
    tree = target / "tree"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "runs")
    shutil.copytree(project, tree, ignore=ignored, symlinks=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(target), str(tree)]
    run(pip)
    shutil.rmtree(tree)
    return next(target.glob("fedfleet-*.whl"))


def renamed(wheel: Path, version: str, bad: tuple[str, str] | None = None) -> Path:
    """Return a copy of a wheel under another version, made bad if asked."""
    before = wheel.name.split("-")[1]
    target = wheel.with_name(wheel.name.replace(f"-{before}-", f"-{version}-"))
    info, fresh = f"fedfleet-{before}.dist-info/", f"fedfleet-{version}.dist-info/"
    names = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name == info + "RECORD":
                continue
            if name == info + "METADATA":
                content = content.replace(
                    f"\nVersion: {before}\n".encode(), f"\nVersion: {version}\n".encode()
                )
            if bad is not None and name == bad[0]:
                content += f"\n{bad[1]}\n".encode()
            names.append(name.replace(info, fresh))
            copy.writestr(names[-1], content)
        record = "".join(f"{name},,\n" for name in [*names, fresh + "RECORD"])
        copy.writestr(fresh + "RECORD", record)
    return target


def dependencies(wheel: Path, project: Path, cache: Path) -> Path:
    """Return a folder with the wheels of a device and a gateway, for the container's Python.

    Raises:
        SkipError: pip cannot get them.
    """
    digest = hashlib.sha256((project / "pyproject.toml").read_bytes()).hexdigest()[:12]
    folder = cache / f"wheels-{PYTHON}-{digest}"
    if folder.is_dir():
        return folder
    fresh = cache / f".wheels-{digest}"
    shutil.rmtree(fresh, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-d", str(fresh)]
    pip += ["--python-version", PYTHON, "--implementation", "cp"]
    pip += [f"--platform={name}" for name in _PLATFORMS]
    if run([*pip, f"{wheel}[device,gateway]"], check=False, timeout_s=600).returncode != 0:
        message = "pip cannot download the wheels of a device and a gateway"
        raise SkipError(message)
    for own in fresh.glob("fedfleet-*.whl"):
        own.unlink()
    fresh.rename(folder)
    return folder
