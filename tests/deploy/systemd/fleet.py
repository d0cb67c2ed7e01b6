"""What a device in the container talks to: broker, central and gateway, on this side of it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from typing_extensions import Self

from tests.deploy.systemd.container import FailedError, Network, run

USER, PASSWORD = "fleet", "s3cret/pass"
#: As a device is told it; the password is percent-encoded.
BROKER = "mqtt://fleet:s3cret%2Fpass@127.0.0.1:1883"
REGION = "north"
_CLASSES, _SIDE, _EXAMPLES = 4, 8, 400
_END_S = 10.0


def write_examples(path: Path) -> None:
    """Write examples that a few rounds can learn: noisy prototypes, four classes of 8 x 8."""
    rng = np.random.default_rng(5)
    prototypes = rng.normal(size=(_CLASSES, 1, _SIDE, _SIDE))
    y = rng.integers(_CLASSES, size=_EXAMPLES)
    x = prototypes[y] + rng.normal(scale=0.5, size=(_EXAMPLES, 1, _SIDE, _SIDE))
    np.savez(path, x=x.astype(np.float32), y=y.astype(np.int64))


class Fleet:
    """The programs, run from this tree; context manager."""

    def __init__(self, work: Path, network: Network, examples: Path) -> None:
        self._work = work
        self._network = network
        self._examples = examples
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Start them."""
        users = self._work / "users"
        run(["mosquitto_passwd", "-b", "-c", str(users), USER, PASSWORD])
        users.chmod(0o644)
        config = self._work / "mosquitto.conf"
        config.write_text(
            "listener 1883 127.0.0.1\nallow_anonymous false\nuser root\n"
            f"password_file {users}\npersistence false\n"
        )
        self.start_broker()
        central = ["--eval-data", f"npz={self._examples}"]
        self._start("central", self._program("central", *central))
        self._start("gateway", self._program("gateway", "--region", REGION))
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            _end(process)

    def logs(self) -> str:
        """Return what the programs have logged."""
        return "".join(path.read_text(errors="replace") for path in self._work.glob("*.log"))

    def start_broker(self) -> None:
        """Start the broker."""
        self._start("mosquitto", ["mosquitto", "-c", str(self._work / "mosquitto.conf")])

    def kill_broker(self) -> None:
        """End the broker at once; its sessions are lost."""
        broker = self._processes.pop("mosquitto")
        broker.kill()
        broker.wait(_END_S)

    def train(self, task: str, rounds: int) -> float:
        """Have a task done; return the accuracy of its last round.

        Raises:
            FailedError: It was refused or did not complete.
        """
        self.submit(task, rounds)
        return self.finish(task)

    def submit(self, task: str, rounds: int) -> None:
        """Hand a task in."""
        what = ["--task", task, "--model", "mlp", "--data", "npz", "--rounds", str(rounds)]
        self._verb("submit", *what, "--min-clients", "1", "--cohort", "1")

    def finish(self, task: str) -> float:
        """Wait until a task has completed; return the accuracy of its last round."""
        lines = self._verb("watch", task, "--json").stdout.splitlines()
        status = json.loads(lines[-1])
        if status["state"] != "completed":
            message = f"task {task}: {status}"
            raise FailedError(message)
        return float(status["metrics"]["accuracy"])

    def wait_for_device(self, name: str, timeout_s: float = 30.0) -> None:
        """Wait until central lists a device as online."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            listed = self._verb("devices", "--json", check=False).stdout
            if f'"{name}"' in listed:
                return
            time.sleep(0.5)
        message = f"device {name} is not listed after {timeout_s:.0f} s"
        raise FailedError(message)

    def _verb(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "fedfleet", *words, "--broker", BROKER]
        return run(self._network.inside(command), check=check, timeout_s=180)

    def _program(self, name: str, *flags: str) -> list[str]:
        state = str(self._work / f"state-{name}")
        command = [sys.executable, "-m", "fedfleet", name, "--broker", BROKER]
        return [*command, "--state-dir", state, *flags]

    def _start(self, name: str, command: list[str]) -> None:
        with (self._work / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._network.inside(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_S)
