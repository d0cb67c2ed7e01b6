"""How one host is set up: look at it, copy the wheels, install or upgrade, wait until healthy."""

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.jetson.fleet_hosts import Host
from deploy.jetson.fleet_ssh import Connection, HostFailedError

Outcome = Literal["installed", "upgraded", "unchanged", "failed"]

_FOLDER = ".cache/fedfleet-install"
_LOWEST_PYTHON = (3, 10)
#: Prints one ``name=value`` a line; the newest Python that runs.
_LOOK = """
mkdir -p {folder} && chmod 700 {folder}
for p in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do
  v=$($p -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) && break
done
echo "python=$(command -v $p)"
echo "version=$v"
echo "venv=$($p -c 'import ensurepip, venv; print(1)' 2>/dev/null)"
echo "free_mb=$(df -Pm /opt 2>/dev/null | awk 'NR==2 {{print $4}}')"
echo "systemd=$(test -d /run/systemd/system && echo 1)"
echo "current=$(basename "$(readlink /opt/fedfleet/current 2>/dev/null)" 2>/dev/null)"
sudo -n true
"""
_INSTALL = """
set -e
umask 022
test -x /opt/fedfleet/{version}/bin/fedfleet || {{
  {python} -m venv /opt/fedfleet/{version}
  /opt/fedfleet/{version}/bin/python -m pip install -q --disable-pip-version-check {pip}
}}
{input} /opt/fedfleet/{version}/bin/fedfleet install device {flags}
"""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is the same for all hosts.

    Attributes:
        wheel: The wheel of fedfleet.
        version: What its name says.
        folder: Wheels of everything else, or None: hosts ask pip's index.
        broker: URL without a password.
        password: The broker's, or None.
        data: Data sources of the devices.
        wait_s: How long a device may take to become healthy.
        min_free_mb: Least free space in /opt, in units of 2**20 bytes.
        connect_timeout_s: Until a host that does not answer is given up.
        timeout_s: The same for one step.
    """

    wheel: Path
    version: str
    folder: Path | None
    broker: str
    password: str | None = field(repr=False)
    data: tuple[str, ...]
    wait_s: float
    min_free_mb: int
    connect_timeout_s: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one host.

    Attributes:
        host: Its address.
        device: Its id.
        outcome: ``failed``, or what was done.
        kind: What failed, in a word or two.
        detail: What was said.
        took_s: How long it took, seconds.
    """

    host: str
    device: str
    outcome: Outcome
    kind: str = ""
    detail: str = ""
    took_s: float = 0.0


def set_up(host: Host, choices: Choices, tell: Callable[[str], None]) -> Result:
    """Set one host up; whatever happens becomes its result.

    Args:
        host: Which.
        choices: What is the same for all.
        tell: Told the name of each step.
    """
    began_s = time.monotonic()
    try:
        outcome = _set_up(host, choices, tell)
    except HostFailedError as error:
        took_s = time.monotonic() - began_s
        return Result(host.address, host.device, "failed", error.kind, error.detail, took_s)
    except Exception as error:  # noqa: BLE001 - what one host says must not end the others
        took_s = time.monotonic() - began_s
        return Result(host.address, host.device, "failed", "odd answer", repr(error), took_s)
    return Result(host.address, host.device, outcome, took_s=time.monotonic() - began_s)


def _set_up(host: Host, choices: Choices, tell: Callable[[str], None]) -> Outcome:
    connection = Connection(host.address, choices.connect_timeout_s, choices.timeout_s)
    tell("looking")
    seen = _look(connection, choices)
    tell("copying")
    wheels = sorted(choices.folder.glob("*.whl")) if choices.folder else []
    connection.copy([choices.wheel, *(w for w in wheels if w.name != choices.wheel.name)], _FOLDER)
    tell("installing")
    script, outcome = _script(host, choices, seen)
    said = connection.run(script, stdin=choices.password or "", kind="install")
    return "unchanged" if "nothing was changed" in said else outcome


def _look(connection: Connection, choices: Choices) -> dict[str, str]:
    """Return what the host says of itself.

    Raises:
        HostFailedError: It does not answer, or it cannot run a device.
    """
    text = connection.run(_LOOK.format(folder=_FOLDER), kind="look")
    seen = dict(re.findall(r"^([a-z_]+)=(.*)$", text, flags=re.MULTILINE))
    trouble = _trouble(seen, choices)
    if trouble is not None:
        raise HostFailedError(*trouble)
    return seen


def _trouble(seen: dict[str, str], choices: Choices) -> tuple[str, str] | None:
    """Return what keeps a host from running a device: in a word or two, and in a sentence."""
    version = tuple(int(part) for part in seen.get("version", "").split(".") if part.isdecimal())
    free_mb = int(seen.get("free_mb") or 0)
    if version < _LOWEST_PYTHON:
        wanted = ".".join(map(str, _LOWEST_PYTHON))
        return (
            "python too old",
            f"Python {seen.get('version') or 'none'}; {wanted} or newer is needed",
        )
    if not seen.get("venv"):
        return "python", "no module venv: apt-get install python3-venv"
    if free_mb < choices.min_free_mb:
        return "disk", f"{free_mb} MB free in /opt, {choices.min_free_mb} needed"
    if not seen.get("systemd"):
        return "systemd", "systemd does not run there"
    return None


def _script(host: Host, choices: Choices, seen: dict[str, str]) -> tuple[str, Outcome]:
    """Return what root is to run on the host, and what it does."""
    wheel = f'"$HOME"/{_FOLDER}/{shlex.quote(choices.wheel.name)}'
    folder = f'--from "$HOME"/{_FOLDER}' if choices.folder else ""
    current = seen.get("current", "")
    if current not in ("", choices.version):
        upgrade = f"--wheel {wheel} {folder} --wait-s {choices.wait_s:.0f}"
        return _as_root(f"/opt/fedfleet/current/bin/fedfleet upgrade device {upgrade}"), "upgraded"
    settings = ["--region", host.region, "--id", host.device, "--broker", choices.broker]
    settings += ["--wait-s", f"{choices.wait_s:.0f}"]
    settings += ["--profile", host.profile] if host.profile else []
    settings += [word for source in choices.data for word in ("--data", source)]
    has_password = choices.password is not None
    settings += ["--password-file", "/dev/stdin"] if has_password else []
    offline = f'--no-index --find-links "$HOME"/{_FOLDER}' if choices.folder else ""
    script = _INSTALL.format(
        version=choices.version,
        python=shlex.quote(seen["python"]),
        pip=f"{offline} {wheel}'[device]'",
        # A pipe can be opened by the name /dev/stdin, the socket that sshd gives cannot.
        input="cat |" if has_password else "",
        flags=f"--wheel {wheel} {folder} {shlex.join(settings)}",
    )
    return _as_root(script), "installed"


def _as_root(script: str) -> str:
    """Return the script for root, with the home folder of who has logged in."""
    return f'sudo -n env HOME="$HOME" sh -c {shlex.quote(script)}'
