"""What the machine's sensors and its control group tell."""

import psutil
import pytest

from device_agent.adapters import machine as adapter
from device_agent.adapters.machine import LocalMachine, own_cgroup
from schemas.limits import MIB


@pytest.fixture(autouse=True)
def supplies(monkeypatch, tmp_path):
    """Power supplies as the kernel shows them; one battery, until a test changes it."""
    folder = tmp_path / "power_supply"

    def write(name, **files):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / name / file).write_text(f"{text}\n")
        return folder

    write("BAT0", type="Battery")
    monkeypatch.setattr(adapter, "_SUPPLIES", folder)
    return write


def test_battery_and_temperature_are_told_where_there_are_sensors(monkeypatch, tmp_path):
    reading = type("Reading", (), {"current": 61.5, "percent": 79.6})()
    monkeypatch.setattr(psutil, "sensors_battery", lambda: reading)
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {"odd": [reading], "nvme": []})
    machine = LocalMachine((), None, tmp_path)
    assert machine.capabilities().battery_percent == 80
    assert machine.vitals().temperature_c == 61.5


def test_the_hottest_of_the_sensors_that_matter_is_told(monkeypatch, tmp_path):
    def sensors(**degrees):
        readings = {
            name.replace("_", "-"): [type("Reading", (), {"current": one})() for one in told]
            for name, told in degrees.items()
        }
        monkeypatch.setattr(psutil, "sensors_temperatures", lambda: readings)
        return LocalMachine((), None, tmp_path).vitals().temperature_c

    assert sensors(AO_therm=[44.0], CPU_therm=[51.0], GPU_therm=[57.5], PLL_therm=[99.0]) == 57.5
    assert sensors(coretemp=[50.0, 62.0], nvme=[80.0]) == 62.0
    assert sensors(nvme=[41.0, 60.0]) == 41.0
    assert sensors(nvme=[]) is None


def test_a_battery_that_is_charged_is_told_as_such(monkeypatch, tmp_path):
    reading = type("Reading", (), {"percent": 20.0, "power_plugged": True})()
    monkeypatch.setattr(psutil, "sensors_battery", lambda: reading)
    vitals = LocalMachine((), None, tmp_path).vitals()
    assert (vitals.battery_percent, vitals.is_plugged) == (20, True)
    reading.power_plugged = None
    assert not LocalMachine((), None, tmp_path).vitals().is_plugged


def test_a_service_of_systemd_sees_the_limit_of_its_own_control_group(tmp_path):
    tree, told = tmp_path / "cgroup", tmp_path / "told"
    unit = tree / "system.slice/fedfleet-device.service"
    unit.mkdir(parents=True)
    (unit / "memory.max").write_text(f"{300 * MIB}\n")
    (unit / "memory.current").write_text(f"{100 * MIB}\n")
    told.write_text("1:name=systemd:/x\n0::/system.slice/fedfleet-device.service\n")
    machine = LocalMachine((), cgroup=own_cgroup(tree, told))
    assert machine.memory_free_bytes() <= 200 * MIB
    assert machine.capabilities().memory_bytes <= 300 * MIB
    told.write_text("0::/\n")  # in a container, or where the path is another namespace's
    assert own_cgroup(tree, told) == tree
    assert own_cgroup(tree, tmp_path / "none") == tree


def test_the_battery_of_a_mouse_is_not_the_machines(monkeypatch, supplies, tmp_path):
    reading = type("Reading", (), {"percent": 5.0, "power_plugged": False})()
    monkeypatch.setattr(psutil, "sensors_battery", lambda: reading)
    assert LocalMachine((), None, tmp_path).vitals().battery_percent == 5
    supplies("BAT0", scope="Device")
    supplies("AC", type="Mains")
    assert LocalMachine((), None, tmp_path).vitals().battery_percent is None


def test_a_kernel_without_power_supplies_has_no_battery(monkeypatch, tmp_path):
    monkeypatch.setattr(adapter, "_SUPPLIES", tmp_path / "none")
    assert LocalMachine((), None, tmp_path).capabilities().battery_percent is None
