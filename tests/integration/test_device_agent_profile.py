"""A device process with a profile: what its birth tells, and that it rests while it is hot."""

import pytest
from device_agent_process import WAIT_S, DeviceProcess, PlayedGateway, broker, write_model

from schemas.limits import MIB
from schemas.messages import JobStatus
from updates.layout import Layout

#: An agent without it is below 120 MiB, tests/acceptance/test_acceptance_device_footprint.py.
BALLAST_MB = 200
LAYOUT = Layout.of({"w": (1000,)})
#: The program, on a machine whose one sensor is a file.
ON_A_MACHINE = """
import psutil, sys, types
from pathlib import Path

def sensors():
    return {{"CPU-therm": [types.SimpleNamespace(current=float(Path({sensor!r}).read_text()))]}}

psutil.sensors_temperatures = sensors
from fedfleet.cli import main
main()
"""


@pytest.fixture
def url():
    with broker() as address:
        yield address


def test_a_hot_device_says_why_it_waits_and_goes_on_once_it_is_cool(url, tmp_path):
    model, sensor = write_model(tmp_path / "model", LAYOUT), tmp_path / "celsius"
    sensor.write_text("91.5")
    code = ON_A_MACHINE.format(sensor=str(sensor))
    flags = ("--profile", "jetson-nano", "--mem-ballast-mb", str(BALLAST_MB))
    with PlayedGateway(url) as gateway, DeviceProcess(url, tmp_path / "d", code, *flags) as device:
        birth = gateway.wait_for_state("online")
        assert birth.profile == "jetson-nano"
        assert birth.capabilities.limits.temperature_ceiling_celsius == 85
        assert birth.capabilities.memory_bytes <= birth.capabilities.limits.memory_bytes
        assert device.memory_bytes("VmRSS") > BALLAST_MB * MIB
        gateway.assign(model, LAYOUT, "raw-f32", epochs=0)
        assert paused(gateway).reason == (
            "paused: 91.5 degrees Celsius, the ceiling is 85, it goes on at 75"
        )
        sensor.write_text("74.0")
        manifest, _ = gateway.wait_for_update()
        gateway.receipt(manifest, "accepted")
        assert gateway.wait_for_status("done").reason is None
        assert device.stop() == 0


def paused(gateway: PlayedGateway) -> JobStatus:
    """Return the first word on the job with a reason."""
    for _ in range(int(WAIT_S)):
        word = gateway.wait_for_status("training")
        if word.reason is not None:
            return word
    message = "no word with a reason"
    raise AssertionError(message)
