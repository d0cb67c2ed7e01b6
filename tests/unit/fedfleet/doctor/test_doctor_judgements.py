"""What the doctor makes of what it has seen; nothing here touches a machine or a broker."""

import os
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from device_agent.settings import DeviceSettings
from fedfleet.doctor import database_checks, file_checks, profile_checks, settings_checks
from fedfleet.doctor.certificate_checks import examine_certificates, judge_validity
from fedfleet.doctor.finding import failed, ok, warning, worst
from fedfleet.doctor.machine_checks import Disk, judge_disk, judge_memory
from fedfleet.doctor.profile_checks import Recognized
from fedfleet.doctor.python_checks import (
    Outcome,
    examine_wheel,
    judge_providers,
    judge_python,
    judge_wheel,
)
from fedfleet.doctor.subject import Wheel, subject_of
from tests.support.certificates import make_certificates
from transport.certificate_dates import Validity
from transport.state_lock import StateLock

DAY_S = 86_400.0
MIB = 1 << 20


def test_the_worst_finding_is_that_of_the_whole():
    assert worst([]) == "ok"
    assert worst([ok("a", ""), warning("b", "", "do")]) == "warning"
    assert worst([failed("c", "", "do"), warning("b", "", "do")]) == "failed"


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 9), "failed"), ((3, 10), "ok"), ((3, 14), "ok"), ((3, 15), "warning")],
)
def test_python_must_be_new_enough_and_is_better_not_untested(version, status):
    assert judge_python(version, "CPython").status == status


@pytest.mark.parametrize(
    ("outcome", "seen", "advice"),
    [
        (
            Outcome("ModuleNotFoundError: No module named 'onnx'", 1),
            "not installed",
            "pip install",
        ),
        (Outcome("ModuleNotFoundError: No module named 'ml_dtypes'", 1), "ml_dtypes", "reinstall"),
        (Outcome("ImportError: libgomp.so.1: cannot open", 1), "libgomp.so.1", "reinstall"),
        (Outcome("", -4), "SIGILL", "another processor"),
        (Outcome("", -1000), "signal 1000", "another processor"),
    ],
)
def test_a_wheel_that_does_not_load_is_told_with_its_cause(outcome, seen, advice):
    found = judge_wheel(Wheel("onnx", "central"), outcome, 1.0)
    assert (found.status, seen in found.seen, advice in found.advice) == ("failed", True, True)


def test_a_wheel_that_another_backend_stands_in_for_is_only_a_warning():
    found = judge_wheel(Wheel("onnxruntime", "device", "warning"), Outcome("", -4), 1.0)
    assert found.status == "warning"


def test_a_wheel_is_really_loaded_and_given_up_after_its_time(tmp_path, monkeypatch):
    (tmp_path / "slow_wheel.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "quick_wheel.py").write_text("__version__ = '7.5'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (slow,) = examine_wheel(Wheel("slow_wheel", "device"), 0.3)
    (quick,) = examine_wheel(Wheel("quick_wheel", "device"), 30.0)
    assert (slow.status, "not loaded within 0.3 s" in slow.seen) == ("warning", True)
    assert (quick.status, quick.seen) == ("ok", "7.5")


def test_a_provider_that_does_not_start_is_told():
    asked = ("cuda", "cpu")
    worse = judge_providers(asked, Outcome('[["cpu"], "cuda: not in this onnxruntime"]', 0))
    assert (worse.status, "not in this onnxruntime" in worse.seen) == ("warning", True)
    assert judge_providers(asked, Outcome('[["cuda", "cpu"], null]', 0)).status == "ok"
    assert judge_providers(asked, Outcome("Segmentation fault", -11)).status == "failed"


@pytest.mark.parametrize(
    ("total", "free", "status"),
    [(100, 90, "failed"), (1000, 100, "failed"), (1000, 200, "warning"), (1000, 900, "ok")],
)
def test_memory_must_hold_the_program_and_be_free(total, free, status):
    assert judge_memory("device", 120 * MIB, total * MIB, free * MIB).status == status


@pytest.mark.parametrize(
    ("free", "files", "status"),
    [(10, 5, "failed"), (5000, 0, "failed"), (500, 5, "warning"), (5000, None, "ok")],
)
def test_a_disk_must_have_bytes_and_files_left(free, files, status, tmp_path):
    disk = Disk(tmp_path, free * MIB, 10_000 * MIB, files)
    assert judge_disk(disk, 1000 * MIB).status == status


@pytest.mark.parametrize(
    ("begin", "end", "status", "words"),
    [
        (1, 90, "failed", "not valid for another 1.0 days"),
        (-90, -2, "failed", "expired 2.0 days ago"),
        (-90, 5, "warning", "expires in 5.0 days"),
        (-90, 90, "ok", "valid for 90.0 days"),
    ],
)
def test_a_certificate_has_its_days(begin, end, status, words):
    now_s = 1e9
    dates = Validity(now_s + begin * DAY_S, now_s + end * DAY_S)
    found = judge_validity("certificate", "it", dates, now_s)
    assert (found.status, words in found.seen) == (status, True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


def of_device(**more):
    return DeviceSettings(region="north", id="d1", data=("digits",), **more)


def statuses(findings):
    return {finding.check: finding.status for finding in findings}


def test_a_key_must_belong_to_its_certificate(certificates):
    names = {"ca_file": certificates / "ca.pem", "cert_file": certificates / "client.pem"}
    now_s = (certificates / "client.pem").stat().st_mtime + 2
    well = of_device(**names, key_file=certificates / "client.key")
    assert statuses(examine_certificates(well, now_s))["certificate.key"] == "ok"
    mixed = of_device(**names, key_file=certificates / "server.key")
    assert statuses(examine_certificates(mixed, now_s))["certificate.key"] == "failed"


def test_a_file_that_is_no_certificate_or_not_there_is_found(certificates, tmp_path):
    for ca_file in (certificates / "client.key", tmp_path / "missing.pem"):
        (found,) = examine_certificates(of_device(ca_file=ca_file), 0.0)
        assert (found.check, found.status) == ("certificate.ca_file", "failed")
        assert str(ca_file) in found.seen


def test_a_password_that_anybody_may_read_is_a_warning(tmp_path):
    config = tmp_path / "device.toml"
    config.write_text('broker = "mqtt://d1:secret@host"\n')
    config.chmod(0o644)
    (found,) = file_checks.examine_config(config)
    assert (found.status, found.advice) == ("warning", f"chmod 0640 {config}")
    assert "secret" not in found.seen
    config.chmod(0o640)
    assert statuses(file_checks.examine_config(config)) == {"config.mode": "ok"}


def test_a_key_that_anybody_may_read_is_a_warning_and_a_missing_one_a_failure(tmp_path):
    settings = of_device(key_file=tmp_path / "key.pem")
    assert statuses(file_checks.examine_secrets(settings)) == {"key_file": "failed"}
    settings.key_file.touch(mode=0o600)
    assert statuses(file_checks.examine_secrets(settings)) == {"key_file": "ok"}
    settings.key_file.chmod(0o644)
    assert statuses(file_checks.examine_secrets(settings)) == {"key_file": "warning"}
    assert file_checks.examine_secrets(of_device()) == []


def test_a_password_of_a_file_is_not_told(tmp_path):
    (link,) = subject_of("device", of_device()).links
    assert "sesame" not in repr(replace(link, password="sesame"))


def test_a_mistyped_variable_of_the_environment_is_named():
    names = ["FEDFLEET_BROKR", "FEDFLEET_BROKER", "FEDFLEET_LOG_LEVEL", "HOME"]
    (found,) = settings_checks.judge_environment("device", names)
    assert (found.status, found.advice) == ("warning", "did you mean FEDFLEET_BROKER?")


def test_a_device_without_examples_or_with_a_bad_policy_is_found(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text("max_epoch = 3\n")
    found = settings_checks.examine_policy(DeviceSettings(region="n", id="d", policy=policy))
    assert statuses(found) == {"settings.policy": "failed", "settings.data": "failed"}
    assert "did you mean 'max_epochs'" in found[0].seen


def test_the_owner_of_a_state_directory_is_read_and_its_lock_not_taken(tmp_path):
    assert database_checks.owner_of(tmp_path) is None
    with StateLock(tmp_path):
        assert database_checks.owner_of(tmp_path) == os.getpid()
        subprocess.run(["true"], check=True)
    assert database_checks.owner_of(tmp_path) is None
    with StateLock(tmp_path):
        pass  # it was free all the time


def test_a_database_at_rest_is_read_without_a_file_beside_it(tmp_path):
    subject = subject_of("device", of_device(state_dir=tmp_path))
    with closing(sqlite3.connect(subject.database)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE x (y)")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (found,) = database_checks.examine_database(subject, 5.0)
    assert (found.status, "brought to" in found.seen) == ("ok", True)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("chosen", "certain", "status"),
    [
        ("auto", True, "ok"),
        ("raspberry-pi-4", True, "ok"),
        ("generic", True, "warning"),
        ("jetson-nano", True, "warning"),
        ("generic", False, "ok"),
        ("jetson-nano", False, "ok"),
    ],
)
def test_a_profile_is_compared_with_the_machine(chosen, certain, status):
    found = profile_checks.judge_profile(
        chosen, Recognized("raspberry-pi-4", certain, "its model")
    )
    assert found.status == status
    assert ("raspberry-pi-4" in found.advice) is (status == "warning")


def test_a_fedfleet_without_profiles_says_so(monkeypatch):
    def missing(_name):
        message = "No module named 'firmware_profiles'"
        raise ImportError(message)

    monkeypatch.setattr(profile_checks, "import_module", missing)
    (found,) = profile_checks.examine_profile(of_device())
    assert (found.status, "not available" in found.seen) == ("warning", True)


def test_a_profile_that_is_not_known_is_a_failure(monkeypatch):
    def unknown(_chosen):
        message = "profile: 'jetson' is not known"
        raise ValueError(message)

    modules = SimpleNamespace(choose_profile=unknown)
    monkeypatch.setattr(profile_checks, "import_module", lambda _: modules)
    (found,) = profile_checks.examine_profile(of_device(profile="jetson"))
    assert (found.status, "profiles list" in found.advice) == ("failed", True)
