"""A whole fleet on this machine whose devices reach their broker through proxies."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedfleet.chaos.proxy import Proxy
from fedfleet.screen import Screen
from fedfleet.testbed.choices import Options
from fedfleet.testbed.demo import free_port
from fedfleet.testbed.plan import Place, make_plan
from fedfleet.testbed.processes import Processes
from fedfleet.testbed.run import Run
from schemas.tasks import TaskStatus

_START_S = 90.0


@dataclass(frozen=True)
class Measured:
    """One run: its task's last status, and what went through the devices' doors until then."""

    status: TaskStatus
    up_bytes: int
    down_bytes: int


def run_measured(
    options: Options, folder: Path, prepare: Callable[[Proxy], None] = lambda proxy: None
) -> Measured:
    """Run a fleet with a door for each device.

    Args:
        options: The fleet and its task.
        folder: For states and logs.
        prepare: Done to the doors once everybody is up, before the task is submitted.
    """
    port = free_port()
    names = [f"device-{number + 1}" for number in range(options.devices)]
    with Proxy(names, port) as proxy:
        place = Place(folder, port, doors=proxy.ports)
        with Processes(folder / "logs") as processes, Screen() as screen:
            fleet = Run(make_plan(options, place), place, processes, screen)
            fleet.start()
            with fleet.connect() as client:
                fleet.wait_for_births(client, _START_S)
                prepare(proxy)
                status = fleet.train(client, 0.0).status
                moved = [proxy.moved(name) for name in names]
    up, down = sum(one["up"] for one in moved), sum(one["down"] for one in moved)
    return Measured(status, up, down)
