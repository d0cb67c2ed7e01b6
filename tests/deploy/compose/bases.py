"""Stand-ins for the images of a registry, from Debian's packages; and the wheels for the build.

What they prove is our Dockerfile and our compose file, not the images that others build: Debian's
Python instead of python.org's, Debian's Mosquitto and Prometheus on glibc. There is no stand-in
for Grafana. Everything made here is kept in the cache.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.compose.engine import BRIDGE, WHEELS_URL
from tests.deploy.compose.report import Failure, Skip

PYTHON_VERSION = "3.11"
SUITE = "bookworm"
_MAKE_S = 900
_LEAN = (
    *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--aptopt=Acquire::Check-Valid-Until "false"',
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin',
)
#: All that usrmerge brings along, which a merged system does not need.
_PERL = (
    "perl perl-modules-5.36 libperl5.36 libfile-find-rule-perl libnumber-compare-perl "
    "libtext-glob-perl"
)


@dataclass(frozen=True)
class Base:
    """One stand-in.

    Attributes:
        name: Of its file in the cache.
        packages: Of Debian.
        hook: Shell; ``$1`` is the root.
        changes: Instructions that the image gets.
    """

    name: str
    packages: tuple[str, ...]
    hook: str
    changes: tuple[str, ...] = ()


PYTHON = Base(
    "python",
    ("usr-is-merged", "python3", "python3-venv", "ca-certificates"),
    # Like python.org's slim images it has pip in /usr/local, and no Perl but dpkg's own.
    f'chroot "$1" apt-get purge -qq --yes usrmerge {_PERL}; '
    'chroot "$1" python3 -m venv /usr/local/pip; '
    'ln -s /usr/local/pip/bin/pip "$1"/usr/local/bin/pip; '
    'ln -s /usr/bin/python3 "$1"/usr/local/bin/python',
    (
        *("ENV PIP_NO_INDEX=1", f"ENV PIP_FIND_LINKS={WHEELS_URL}"),
        f"ENV PIP_TRUSTED_HOST={BRIDGE}",
    ),
)
MOSQUITTO = Base(
    "mosquitto",
    ("mosquitto", "mosquitto-clients"),
    'mkdir -p "$1"/mosquitto/config "$1"/mosquitto/data "$1"/mosquitto/log; '
    'chown -R 1883:1883 "$1"/mosquitto; '
    'sed -i "s/^mosquitto:x:[0-9]*:[0-9]*/mosquitto:x:1883:1883/" "$1"/etc/passwd',
    ('CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]',),
)
PROMETHEUS = Base(
    "prometheus",
    ("prometheus", "wget"),
    'mkdir -p "$1"/prometheus; chown 65534:65534 "$1"/prometheus; rm -rf "$1"/etc/prometheus/*',
    ('ENTRYPOINT ["/usr/bin/prometheus"]',),
)


def root_filesystem(base, cache):
    """Return the stand-in's archive; made once, in a minute."""
    digest = hashlib.sha256(repr((base.packages, base.hook, _LEAN)).encode()).hexdigest()[:12]
    target = cache / f"{base.name}-{digest}.tar"
    if target.is_file():
        return target
    fresh = target.with_suffix(".new.tar")
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
        *(f"--include={','.join(base.packages)}", *_LEAN, f"--customize-hook={base.hook}"),
        *(SUITE, str(fresh), str(_apt_sources())),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_S, check=False)
    if done.returncode:
        message = f"mmdebstrap cannot make {base.name}: {done.stderr.strip()[-500:]}"
        raise Skip(message)
    fresh.rename(target)
    return target


def bring(engine, base, tags, cache):
    """Give the engine a stand-in under the names that our files call it."""
    archive = root_filesystem(base, cache)
    changes = [word for change in base.changes for word in ("--change", change)]
    first, *others = tags
    engine.docker("import", *changes, archive, first, timeout_s=300)
    for tag in others:
        engine.docker("tag", first, tag)


def wheelhouse(project, torch, cache):
    """Return a folder with every wheel that the images need, fetched by this machine's pip.

    Args:
        project: Folder of ``pyproject.toml``.
        torch: The build argument; may carry options of pip.
    """
    script = project / "deploy" / "docker" / "requirements.py"
    told = subprocess.run(
        [sys.executable, str(script), "central", "device", "gateway"],
        cwd=project, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    needed = [*shlex.split(torch), *told.stdout.split("\n"), "setuptools>=77", "wheel"]
    digest = hashlib.sha256(json.dumps(needed).encode()).hexdigest()[:12]
    target = cache / f"wheels-{digest}"
    if not target.is_dir():
        fresh = Path(tempfile.mkdtemp(dir=cache, prefix="wheels-new-"))
        _download(fresh, [word for word in needed if word])
        _download(fresh, ["--no-deps", "scikit-learn>=1.4"])
        fresh.rename(target)
    return target


def compose_plugin(cache):
    """Return a folder with the plug-in ``docker-compose``, version 2.

    The machine's own where it has one, else that of Debian 13, unpacked and not installed; apt
    checks its signature.
    """
    installed = Path("/usr/libexec/docker/cli-plugins/docker-compose")
    if installed.is_file():
        return installed.parent
    target = cache / "compose-plugin"
    if not (target / "docker-compose").is_file():
        with tempfile.TemporaryDirectory() as folder:
            unpacked = _unpacked(Path(folder), "docker-compose", "docker-buildx")
            shutil.copytree(unpacked / "usr/libexec/docker/cli-plugins", target)
    return target


def python_image(project):
    """Return the image that the Dockerfile builds on."""
    text = (project / "deploy" / "docker" / "Dockerfile").read_text()
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)", text, re.MULTILINE)
    if found is None:
        message = "deploy/docker/Dockerfile names no PYTHON_IMAGE"
        raise Failure(message)
    return found[1]


def _download(folder, words):
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--only-binary=:all:", "--python-version", PYTHON_VERSION, "--dest", str(folder)),
    ]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=_MAKE_S, check=False
    )
    if done.returncode:
        message = f"pip cannot fetch the wheels: {done.stderr.strip()[-500:]}"
        raise Skip(message)


def _apt_sources():
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        if Path(path).is_file():
            return path
    message = "the stand-in images come from Debian's packages, and this machine has no sources"
    raise Skip(message)


def _unpacked(folder, *packages):
    first = Path(_apt_sources()).read_text().split("\n\n")[0]
    if "Suites:" not in first:
        message = "docker compose 2 is not installed, and no debian.sources says where it is"
        raise Skip(message)
    for name in ("parts", "lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    newer = re.sub(r"^Suites:.*", "Suites: trixie", first, flags=re.MULTILINE)
    (folder / "parts" / "x.sources").write_text(newer + "\n")
    options = [
        *("-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={folder}/parts"),
        *("-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"),
        *("-o", "APT::Sandbox::User=root", "-qq"),
    ]
    for verb in (["update"], ["download", *packages]):
        done = subprocess.run(
            ["apt-get", *options, *verb], cwd=folder, capture_output=True, text=True,
            timeout=_MAKE_S, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        if done.returncode:
            message = f"docker compose 2 cannot be fetched: {done.stderr.strip()[-300:]}"
            raise Skip(message)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder / "x"], check=True, timeout=120)
    return folder / "x"
