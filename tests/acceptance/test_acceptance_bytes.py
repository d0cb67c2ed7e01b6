"""What a task's status says of bytes, against what proxies before the devices measured."""

import json

import pytest

from fedfleet.testbed.choices import Options
from tests.support.measured_fleet import run_measured

DEVICES, ROUNDS = 3, 10
#: What follows a device's last update is in no round: its receipt and its last word on the job.
TOLERANCE = 0.03
SLOW_S = 1.2


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
    measured = run_measured(options, tmp_path)
    status, updates = measured.status, DEVICES * ROUNDS
    assert status.updates_accepted == updates
    assert status.uplink_wire_bytes == pytest.approx(measured.up_bytes, rel=TOLERANCE)
    assert status.downlink_wire_bytes == pytest.approx(measured.down_bytes, rel=TOLERANCE)
    assert status.uplink_wire_bytes == sum(one.uplink_wire_bytes for one in status.history)
    assert status.downlink_wire_bytes == sum(one.downlink_wire_bytes for one in status.history)

    raw_bytes = 4 * status.parameters * updates
    assert status.uplink_ratio == pytest.approx(raw_bytes / status.uplink_bytes)
    assert status.uplink_wire_ratio == pytest.approx(raw_bytes / status.uplink_wire_bytes)
    assert status.uplink_ratio >= least_ratio
    overhead_bytes = (status.uplink_wire_bytes - status.uplink_bytes) / updates
    print(f"\n{codec}: {overhead_bytes:.0f} bytes beside an update")  # noqa: T201 - seen with -s
    assert overhead_bytes < 1500


def test_with_auto_a_device_on_a_slow_link_sends_less_than_one_on_a_fast_link(tmp_path):
    """Every piece through the slow door waits: the first update tells how slow it is."""
    options = Options(
        devices=2, regions=1, rounds=3, codec="auto", codec_params={"accuracy": "exact"}, epochs=1
    )

    def slow_down(proxy):
        proxy.tell("device-2", lambda door: setattr(door, "delay_s", SLOW_S))

    status = run_measured(options, tmp_path, slow_down).status
    first, *_, last = status.history
    assert first.codecs == {"raw-f32": 2}
    assert last.codecs == status.codecs == {"raw-f32": 1, "fp16": 1}
    log = (tmp_path / "logs" / "device-2.log").read_text().splitlines()
    chosen = [json.loads(line) for line in log if '"codec_chosen"' in line]
    assert [one["codec"] for one in chosen] == ["raw-f32", "fp16", "fp16"]
    assert "(measured); raw-f32 takes" in chosen[1]["reason"]
