"""A Docker engine of the run's own: its network is a namespace, its files are in one folder.

The machine's own network, firewall and ``/var/lib/docker`` stay as they are, and containers reach
nothing but each other and what listens in the namespace.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.deploy.compose.report import Failure, Skip

#: Address of the engine's bridge, as seen from a container that is being built.
BRIDGE = "172.17.0.1"
_WHEELS_PORT = 8765
WHEELS_URL = f"http://{BRIDGE}:{_WHEELS_PORT}/"
_START_S = 60
_STOP_S = 40
#: A socket's path may have 107 characters.
_LONGEST_FOLDER = 80
TOOLS = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mmdebstrap": "mmdebstrap",
    "mosquitto_pub": "mosquitto-clients",
}


def check_tools():
    """Raise ``Skip`` when this cannot run Docker at all."""
    if os.geteuid() != 0:
        message = "needs root: it starts a Docker engine in a network namespace of its own"
        raise Skip(message)
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        message = f"tools are missing: apt-get install --no-install-recommends {' '.join(missing)}"
        raise Skip(message)


def client():
    """Return the docker client: the distribution's own, which fits its engine."""
    return next(
        str(path)
        for path in (Path("/usr/bin/docker"), shutil.which("docker"))
        if path and Path(path).exists()
    )


class Engine:
    """A context manager: the engine runs inside the block, and nothing of it is left after."""

    def __init__(self, folder, plugins):
        """Settle the places.

        Args:
            folder: All its state; removed at the end.
            plugins: Folder with the client's plug-in ``docker-compose``.
        """
        self.folder = folder
        self.namespace = f"fedfleet-{os.getpid()}"
        self.environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{folder}/sock",
            "DOCKER_CONFIG": str(folder / "client"),
        }
        self._docker = client()
        self._plugins = plugins
        self._processes = []

    def __enter__(self):
        if len(str(self.folder)) > _LONGEST_FOLDER:
            message = f"{self.folder}: too long a path for the engine's socket"
            raise Skip(message)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "client").mkdir(exist_ok=True)
        plugins = self.folder / "client" / "cli-plugins"
        plugins.unlink(missing_ok=True)
        plugins.symlink_to(self._plugins)
        made = self._host("ip", "netns", "add", self.namespace)
        if made.returncode:
            message = f"the kernel makes no network namespace: {made.stderr.strip()}"
            raise Skip(message)
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        for point in _mounts_under(self.folder):
            self._host("umount", "--lazy", point)
        self._host("ip", "netns", "delete", self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)

    def docker(self, *arguments, timeout_s=120, check=True):
        """Run the docker client and return what it wrote to stdout.

        Raises:
            Failure: It ended with an error, which is in the text.
        """
        done = subprocess.run(
            [self._docker, *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            message = f"docker {' '.join(map(str, arguments[:4]))} ... failed:\n{said}"
            raise Failure(message)
        return done.stdout

    def inside(self, *command, namespace=None, timeout_s=30, check=True):
        """Run a program of this machine in the engine's network, or in that of a process.

        Args:
            namespace: A process id; None: where the engine publishes ports.
        """
        place = f"/proc/{namespace}/ns/net" if namespace else f"/run/netns/{self.namespace}"
        done = self._host("nsenter", f"--net={place}", *command, timeout_s=timeout_s)
        if check and done.returncode:
            message = f"{' '.join(map(str, command))}: {done.stderr.strip()}"
            raise Failure(message)
        return done.stdout

    def serve_wheels(self, folder):
        """Let builds fetch wheels from a folder, over the bridge; they reach nothing else."""
        self._spawn("wheels.log", sys.executable, "-m", "http.server", str(_WHEELS_PORT),
                    "--bind", BRIDGE, "--directory", str(folder))  # fmt: skip

    def _start(self):
        self._spawn(
            "dockerd.log",
            "sh", "-c", 'ip link set lo up; exec "$@"', "sh",
            "dockerd",
            "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"),
            "--pidfile", str(self.folder / "pid"),
            "--host", f"unix://{self.folder}/sock",
        )  # fmt: skip
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self._processes[0].poll() is None:
            if self.docker("version", "--format", "{{.Server.Version}}", check=False).strip():
                return
            time.sleep(0.2)
        lines = (self.folder / "dockerd.log").read_text(errors="replace").splitlines()[-3:]
        message = "the Docker engine does not start here: " + " | ".join(lines)
        raise Skip(message)

    def _spawn(self, log, *command):
        with (self.folder / log).open("wb") as output:
            self._processes.append(
                subprocess.Popen(
                    ["nsenter", f"--net=/run/netns/{self.namespace}", *command],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )

    @staticmethod
    def _host(*command, timeout_s=30):
        return subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def _mounts_under(folder):
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)
