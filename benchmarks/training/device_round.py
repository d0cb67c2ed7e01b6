"""Rounds of a fleet whose one device runs in an environment of its own: what its process takes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from benchmarks.fleet import MeteredProcesses
from fedfleet.screen import Screen
from fedfleet.testbed.choices import Options
from fedfleet.testbed.demo import free_port
from fedfleet.testbed.plan import Place, Plan, Process, make_plan
from fedfleet.testbed.run import Run
from learning.data.sources import load

ROUNDS = 2
_START_S = 120.0
_KIB = 1024


@dataclass(frozen=True, slots=True)
class RoundUse:
    """What the device's process took, and what central's model was worth.

    Attributes:
        resident_bytes: Its resident memory after the last round.
        peak_bytes: The most that it ever was.
        accuracy: On digits that the device has not; 0.1 is chance.
    """

    resident_bytes: int
    peak_bytes: int
    accuracy: float


def play(python: Path, backend: Literal["onnx", "torch"], folder: Path) -> RoundUse:
    """Train LeNet-5 for some rounds of a real fleet; its device runs by ``python``.

    Args:
        python: Interpreter of an environment that holds ``fedfleet`` and the backend.
        backend: What the device trains with.
        folder: For states and logs; must not exist.

    Raises:
        FleetError: The fleet did not come up, or its task did not complete.
    """
    place = Place(folder, free_port())
    options = Options(
        devices=1, regions=1, rounds=ROUNDS, model="lenet5", backend=backend, learning_rate=0.02
    )
    plan = _with_device_of(python, make_plan(options, place), _write_digits(folder))
    with _running(plan, place, folder) as (run, processes):
        run.start()
        with run.connect() as client:
            run.wait_for_births(client, _START_S)
            outcome = run.train(client, 0.0)
        device = processes.by_name[plan.members[0].device]
        now, most = _resident_bytes(device)
    return RoundUse(now, most, outcome.rounds[-1].metrics["accuracy"])


@contextmanager
def _running(plan: Plan, place: Place, folder: Path) -> Iterator[tuple[Run, MeteredProcesses]]:
    with MeteredProcesses(folder / "logs") as processes:
        yield Run(plan, place, processes, Screen()), processes


def _write_digits(folder: Path) -> Path:
    """Write the examples as a file: a device has no scikit-learn."""
    folder.mkdir(parents=True)
    digits, path = load("digits"), folder / "digits.npz"
    np.savez(path, x=digits.x, y=digits.y)
    return path


def _with_device_of(python: Path, plan: Plan, examples: Path) -> Plan:
    device = plan.members[0].device
    data = f"npz={examples},name=digits,classes=10"

    def moved(process: Process) -> Process:
        if process.name != device:
            return process
        argv = list(process.argv)
        argv[argv.index("--data") + 1] = data
        return replace(process, argv=(str(python), "-I", *argv[1:]))

    return replace(plan, services=tuple(moved(process) for process in plan.services))


def _resident_bytes(process: psutil.Process) -> tuple[int, int]:
    status = Path(f"/proc/{process.pid}/status").read_text()
    now, most = (re.findall(rf"{key}:\s+(\d+) kB", status)[0] for key in ("VmRSS", "VmHWM"))
    return int(now) * _KIB, int(most) * _KIB
