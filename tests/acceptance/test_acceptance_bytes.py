"""What a task's status says of bytes, against what proxies before the devices measured."""

import pytest

from fedfleet.chaos.proxy import Proxy
from fedfleet.screen import Screen
from fedfleet.testbed.choices import Options
from fedfleet.testbed.demo import free_port
from fedfleet.testbed.plan import Place, make_plan
from fedfleet.testbed.processes import Processes
from fedfleet.testbed.run import Run

DEVICES, ROUNDS = 3, 10
START_S = 90.0
#: What follows a device's last update is in no round: its receipt and its last word on the job.
TOLERANCE = 0.03


def run_measured(options, folder):
    """Run a fleet through a door for each device; return its status and the doors' bytes."""
    port = free_port()
    names = [f"device-{number + 1}" for number in range(options.devices)]
    with Proxy(names, port) as proxy:
        place = Place(folder, port, doors=proxy.ports)
        with Processes(folder / "logs") as processes, Screen() as screen:
            fleet = Run(make_plan(options, place), place, processes, screen)
            fleet.start()
            with fleet.connect() as client:
                fleet.wait_for_births(client, START_S)
                status = fleet.train(client, 0.0).status
                moved = [proxy.moved(name) for name in names]
    return status, sum(one["up"] for one in moved), sum(one["down"] for one in moved)


@pytest.mark.parametrize(
    ("codec", "params", "least_ratio"),
    [("topk", {"fraction": 0.01}, 100.0), ("raw-f32", {}, 0.99)],
)
def test_the_bytes_of_a_task_are_those_that_went_through_the_devices_sockets(
    tmp_path, codec, params, least_ratio
):
    options = Options(
        devices=DEVICES, regions=1, rounds=ROUNDS, codec=codec, codec_params=params, epochs=1
    )
    status, up_bytes, down_bytes = run_measured(options, tmp_path)
    updates = DEVICES * ROUNDS
    assert status.updates_accepted == updates
    assert status.uplink_wire_bytes == pytest.approx(up_bytes, rel=TOLERANCE)
    assert status.downlink_wire_bytes == pytest.approx(down_bytes, rel=TOLERANCE)
    assert status.uplink_wire_bytes == sum(one.uplink_wire_bytes for one in status.history)
    assert status.downlink_wire_bytes == sum(one.downlink_wire_bytes for one in status.history)

    raw_bytes = 4 * status.parameters * updates
    assert status.uplink_ratio == pytest.approx(raw_bytes / status.uplink_bytes)
    assert status.uplink_wire_ratio == pytest.approx(raw_bytes / status.uplink_wire_bytes)
    assert status.uplink_ratio >= least_ratio
    overhead_bytes = (status.uplink_wire_bytes - status.uplink_bytes) / updates
    print(f"\n{codec}: {overhead_bytes:.0f} bytes beside an update")  # noqa: T201 - seen with -s
    assert overhead_bytes < 1500
