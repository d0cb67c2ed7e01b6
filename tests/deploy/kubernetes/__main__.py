"""Renders the overlays with kustomize and checks what comes out; exit code 77: it cannot run here.

``python -m tests.deploy.kubernetes [--tools DIR]``. No cluster takes part: whether one would run the
objects is not known from this.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubernetes_objects import CHECKS, login_problems, settings_problems

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("edge-fleet", "single-node")
#: The oldest one that is still in use, one between, and the newest whose schemas are at hand.
VERSIONS = ("1.30", "1.33", "1.37")
SKIPPED = 77
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_RELEASE = "trixie"


class SkippedError(Exception):
    """Something is missing here; the text says what."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, default=ROOT / "build" / "tools")
    try:
        render = renderer(parser.parse_args().tools)
        check_validator()
    except SkippedError as error:
        say(f"SKIP: {error}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "kubernetes"
        shutil.copytree(MANIFESTS, copy)
        problems = [line for name in OVERLAYS for line in check(name, copy, render)]
    say("\n".join(problems) or f"PASS: {', '.join(OVERLAYS)} for {', '.join(VERSIONS)}")
    return 1 if problems else 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def check(name: str, manifests: Path, render: Sequence[str]) -> list[str]:
    """Render one overlay with fresh secrets; return what is wrong with it."""
    overlay = manifests / "overlays" / name
    command = [sys.executable, str(manifests / "write_secrets.py"), str(overlay)]
    subprocess.run(command, check=True, capture_output=True)
    done = subprocess.run([*render, str(overlay)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [f"{name}: {done.stderr.strip()}"]
    rendered = manifests / f"{name}.yaml"
    rendered.write_text(done.stdout)
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    found = [f"{name}: {line}" for line in semantic_problems(objects)]
    for version in VERSIONS:
        found += [f"{name}, Kubernetes {version}: {line}" for line in misfits(rendered, version)]
    say(f"{name}: {len(objects)} objects")
    return found


def semantic_problems(objects: list[dict[str, Any]]) -> list[str]:
    checks = (*CHECKS, settings_problems, login_problems)
    return [line for one in checks for line in one(objects)]


def misfits(rendered: Path, version: str) -> list[str]:
    """Validate against one version's schemas, unknown keys included."""
    command = [sys.executable, "-m", "kubernetes_validate", "-k", version, "--strict", "--quiet"]
    done = subprocess.run([*command, str(rendered)], capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else [(done.stdout + done.stderr).strip()]


def check_validator() -> None:
    if find_spec("kubernetes_validate") is None:
        message = "kubernetes-validate is not installed: pip install kubernetes-validate"
        raise SkippedError(message)


def renderer(tools: Path) -> list[str]:
    """Return the command that renders a folder.

    Raises:
        SkippedError: There is none, and it cannot be had.
    """
    for candidate in (shutil.which("kustomize"), str(tools / "kustomize")):
        if candidate and Path(candidate).is_file():
            return [candidate, "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    unpack_kustomize(tools)
    return [str(tools / "kustomize"), "build"]


def unpack_kustomize(tools: Path) -> None:
    """Unpack Debian's package of kustomize, whose signature apt checks; nothing is installed.

    Raises:
        SkippedError: This is no Debian, or the package cannot be had.
    """
    if not _SOURCES.is_file() or not shutil.which("apt-get"):
        message = "neither kustomize nor kubectl is here, and this is no Debian to unpack one from"
        raise SkippedError(message)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part in ("parts", "lists/partial", "cache/archives/partial"):
            (place / part).mkdir(parents=True)
        first, *_ = _SOURCES.read_text().split("\n\n")
        lines = [
            f"Suites: {_RELEASE}" if line.startswith("Suites:") else line
            for line in first.splitlines()
        ]
        (place / "parts" / "one.sources").write_text("\n".join(lines) + "\n")
        options = [
            *("-o", "Dir::Etc::sourcelist=/dev/null"),
            *("-o", f"Dir::Etc::sourceparts={place / 'parts'}"),
            *("-o", f"Dir::State::lists={place / 'lists'}"),
            *("-o", f"Dir::Cache={place / 'cache'}"),
        ]
        if os.geteuid() == 0:
            options += ["-o", "APT::Sandbox::User=root"]
        for action in (["update"], ["download", "kustomize"]):
            done = subprocess.run(
                ["apt-get", "-qq", *options, *action],
                cwd=place,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                message = f"kustomize cannot be had from {_RELEASE}: {done.stderr.strip()[-200:]}"
                raise SkippedError(message)
        (package,) = place.glob("kustomize_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(place / "x")], check=True)
        tools.mkdir(parents=True, exist_ok=True)
        shutil.copy2(place / "x" / "usr" / "bin" / "kustomize", tools / "kustomize")


if __name__ == "__main__":
    sys.exit(main())
