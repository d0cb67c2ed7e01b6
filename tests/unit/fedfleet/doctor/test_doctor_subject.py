"""Whom the doctor examines, and that it loads code from nowhere but the installation."""

from device_agent.settings import DeviceSettings
from fedfleet.doctor.python_checks import examine_wheel
from fedfleet.doctor.subject import Wheel, subject_of


def providers(**settings):
    return subject_of("device", DeviceSettings(region="n", id="d1", **settings)).providers


def test_a_device_computes_on_what_its_profile_says_unless_its_owner_says_more():
    assert providers(profile="jetson-orin-nano") == ("cuda", "cpu")
    assert providers(profile="jetson-orin-nano", providers=("cpu",)) == ("cpu",)
    assert providers(profile="no-such-profile") == ("cpu",)


def test_a_wheel_is_not_taken_from_the_folder_that_the_doctor_runs_in(tmp_path, monkeypatch):
    planted = tmp_path / "click.py"
    planted.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    (finding,) = examine_wheel(Wheel("click", "device"), 20.0)
    assert (finding.status, (tmp_path / "ran").exists()) == ("ok", False)
