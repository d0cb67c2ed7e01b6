"""Debian with systemd as PID 1, booted in systemd-nspawn in a network of its own.

Works where PID 1 is not systemd. machinectl does not, so commands are run with nsenter.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import Self

SUITE = "bookworm"
#: Of that suite's Python; the wheels that go in are chosen for it.
PYTHON = "3.11"
_PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,iproute2,procps"
_TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "mosquitto": "mosquitto",
}
_SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
_BOOT_S = 30.0
_END_S = 20.0
_TAIL = 2000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SkipError(Exception):
    """The test cannot run here; the text says why."""


class FailedError(Exception):
    """Something that must hold does not."""


def run(
    command: Sequence[str], *, check: bool = True, timeout_s: float = 300.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command and return what it said.

    Raises:
        FailedError: It fails, and ``check`` is set.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr)[-_TAIL:]
        message = f"{' '.join(command)} failed ({done.returncode}):\n{said}"
        raise FailedError(message)
    return done


def check_tools() -> None:
    """Check that all that is needed is there, and install what is missing if apt can.

    Raises:
        SkipError: Something is not to be had.
    """
    if os.geteuid() != 0:
        message = "needs root"
        raise SkipError(message)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        message = f"needs {', '.join(missing)}, and there is no apt-get"
        raise SkipError(message)
    run(["apt-get", "update", "-q"], check=False)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    if run(install, check=False).returncode != 0:
        message = f"cannot install {', '.join(missing)}"
        raise SkipError(message)


def root_archive(cache: Path) -> Path:
    """Return the archive of the container's files, made once.

    Raises:
        SkipError: It cannot be made.
    """
    archive = cache / f"systemd-{SUITE}.tar"
    if archive.is_file():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    source = next((path for path in _SOURCES if Path(path).is_file()), None)
    if source is None:
        message = "no list of Debian's package sources on this machine"
        raise SkipError(message)
    fresh = cache / f".new-{os.getpid()}.tar"
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *excluded]
    command += [f"--include={_PACKAGES}", '--aptopt=Acquire::Check-Valid-Until "false"']
    command += ['--customize-hook=rm -rf "$1"/var/lib/apt/lists/*; : >"$1"/etc/machine-id']
    if run([*command, SUITE, str(fresh), source], check=False, timeout_s=900).returncode != 0:
        message = "mmdebstrap cannot make a Debian here"
        raise SkipError(message)
    fresh.rename(archive)
    return archive


class Network:
    """A network namespace with nothing but a loopback interface; context manager."""

    def __init__(self) -> None:
        self.name = f"fedfleet-sd-{os.getpid()}"

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            SkipError: The kernel or the rights do not allow it.
        """
        if run(["ip", "netns", "add", self.name], check=False).returncode != 0:
            message = "no network namespaces here"
            raise SkipError(message)
        run(["ip", "-n", self.name, "link", "set", "lo", "up"])
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        run(["ip", "netns", "del", self.name], check=False)

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command in it."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]


class Container:
    """The booted Debian; context manager."""

    def __init__(self, archive: Path, root: Path, network: Network) -> None:
        self.root = root
        self._archive = archive
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        """Unpack its files; it is not booted yet."""
        self.root.mkdir(parents=True)
        run(["tar", "-xf", str(self._archive), "-C", str(self.root)])
        return self

    def boot(self) -> str:
        """Start it; return what systemd says of itself.

        Raises:
            SkipError: systemd-nspawn does not boot here.
        """
        command = ["systemd-nspawn", "--quiet", "-D", str(self.root), "--boot", "--register=no"]
        command += ["--keep-unit", "-M", self._network.name, "--console=pipe"]
        command += [f"--network-namespace-path=/run/netns/{self._network.name}"]
        command += ["--system-call-filter=bpf", "--capability=CAP_BPF,CAP_NET_ADMIN"]
        log = self.root.parent / "boot.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
        until_s = time.monotonic() + _BOOT_S
        while time.monotonic() < until_s and self._process.poll() is None:
            state = self._system_state()
            if state in {"running", "degraded"}:
                return state
            time.sleep(0.2)
        message = f"systemd-nspawn does not boot here: {log.read_text(errors='replace')[-300:]}"
        raise SkipError(message)

    def _system_state(self) -> str:
        if self._process is None:
            return "off"
        if not self._leader:
            found = run(["pgrep", "-P", str(self._process.pid), "-x", "systemd"], check=False)
            self._leader = int(found.stdout.split()[0]) if found.stdout.split() else 0
        if not self._leader:
            return "off"
        return self.do("systemctl", "is-system-running", check=False).stdout.strip()

    def do(
        self, *command: str, check: bool = True, timeout_s: float = 300.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it as root, with a clean environment."""
        clean = ["env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", *command]
        enter = ["nsenter", "-t", str(self._leader), "-a", *clean]
        return run(enter, check=check, timeout_s=timeout_s)

    def __exit__(self, *_: object) -> None:
        """Shut it down and remove its files."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                if self._leader:
                    os.kill(self._leader, signal.SIGKILL)
                self._process.kill()
                self._process.wait(_END_S)
        shutil.rmtree(self.root, ignore_errors=True)
        for hierarchy in ("unified", "systemd"):
            for name in ("payload", "supervisor"):
                _remove_group(Path("/sys/fs/cgroup") / hierarchy / name)


def _remove_group(folder: Path) -> None:
    """Remove the control groups that nspawn leaves behind when nobody registers it."""
    for path, _, _ in os.walk(folder, topdown=False):
        run(["rmdir", path], check=False)
