"""Faults of a machine, its files and settings: found, named, and what to do about them."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from types import SimpleNamespace

import psutil
import pytest

from fedfleet.doctor import examination
from tests.support.doctor_reports import examine, run
from tests.support.small_disks import small_disk
from transport.state_lock import StateLock


def test_a_healthy_device_has_no_failure(device, tmp_path, real_wheels):
    before = sorted((tmp_path / "state").iterdir())
    report = examine("device", *device)
    assert report.failed == set()
    proved = ("publish", "listen", "packet_size", "session", "subscribe", "login")
    assert {report.findings[f"broker.{name}"]["status"] for name in proved} == {"ok"}
    assert report.findings["database"]["status"] == "ok"
    assert sorted((tmp_path / "state").iterdir()) == before


def test_a_healthy_gateway_has_no_failure_on_either_of_its_sessions(broker, tmp_path):
    report = examine(
        "gateway", "--region", "north", "--broker", broker.url, "--state-dir", tmp_path
    )
    assert report.failed == set()
    for link in ("uplink", "downlink"):
        assert report.findings[f"{link}.listen"]["status"] == "ok"
        assert report.findings[f"{link}.publish"]["status"] == "ok"


def test_a_healthy_central_has_no_failure(broker, tmp_path):
    report = examine("central", "--broker", broker.url, "--state-dir", tmp_path)
    assert report.failed == set()
    assert {"wheel.torch", "wheel.onnx", "wheel.onnxscript"} <= report.findings.keys()
    assert report.findings["broker.packet_size"]["status"] == "ok"


def test_a_full_disk_is_found(device, tmp_path):
    with small_disk(tmp_path / "full", 4 << 20) as disk:
        disk.fill()
        report = examine("device", *device[:-3], tmp_path / "full")
    assert "disk" in report.failed
    assert "free space" in report.advice("disk")


def test_a_disk_that_is_told_to_be_full_is_found(device, monkeypatch):
    none = SimpleNamespace(f_bavail=0, f_frsize=4096, f_blocks=1000, f_files=0, f_favail=0)
    monkeypatch.setattr(examination.machine_checks.os, "statvfs", lambda _: none)
    report = examine("device", *device)
    assert report.failed == {"disk"}
    assert "the disk is full" in report.advice("disk")


def test_a_missing_wheel_is_found(device, tmp_path, monkeypatch, real_wheels):
    (tmp_path / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = examine("device", *device)
    assert report.failed == {"wheel.onnxruntime"}
    assert report.seen("wheel.onnxruntime") == "not installed"
    assert report.advice("wheel.onnxruntime") == "pip install 'fedfleet[device]'"


def test_a_wheel_for_another_processor_is_found(device, tmp_path, monkeypatch, real_wheels):
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = examine("device", *device)
    assert "wheel.numpy" in report.failed
    assert "SIGILL" in report.seen("wheel.numpy")
    assert "another processor" in report.advice("wheel.numpy")


def test_a_state_directory_that_cannot_be_written_to_is_found(device, tmp_path):
    state_dir = tmp_path / "read-only"
    if os.geteuid() == 0:  # whom no mode stops
        with small_disk(state_dir, 1 << 20):
            subprocess.run(["mount", "-o", "remount,ro", state_dir], check=True)
            report = examine("device", *device[:-3], state_dir)
    else:
        state_dir.mkdir(mode=0o500)
        report = examine("device", *device[:-3], state_dir)
    assert "state_dir" in report.failed
    assert "cannot be written to" in report.seen("state_dir")
    assert f"chown -R USER {state_dir}" in report.advice("state_dir")


def test_a_damaged_database_is_found(device, tmp_path):
    database = tmp_path / "state" / "device.db"
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    report = examine("device", *device)
    assert report.failed == {"database"}
    assert "damaged" in report.seen("database")
    assert "move" in report.advice("database")


def test_the_database_of_a_newer_version_is_found(device, tmp_path):
    with closing(sqlite3.connect(tmp_path / "state" / "device.db")) as database:
        database.execute("PRAGMA user_version = 99")
    report = examine("device", *device)
    assert report.failed == {"database"}
    assert "schema version 99" in report.seen("database")


def test_an_unknown_setting_is_found_and_the_machine_examined_all_the_same(device, tmp_path):
    config = tmp_path / "device.toml"
    config.write_text('broker = "mqtt://d1:secret@127.0.0.1"\nregoin = "north"\n')
    report = examine("device", "--id", "d1", "--config", config)
    assert report.failed == {"settings"}
    assert "regoin: unknown field; did you mean 'region'?" in report.seen("settings")
    assert str(config) in report.advice("settings")
    assert report.findings["python"]["status"] == "ok"
    assert "secret" not in json.dumps(report.findings)


def test_too_little_memory_is_found(device, monkeypatch):
    little = SimpleNamespace(total=64 << 20, available=30 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    report = examine("device", *device)
    assert report.failed == {"memory"}
    assert "67.1 MB" in report.seen("memory")
    assert "larger machine" in report.advice("memory")


def test_a_program_that_runs_is_named_and_keeps_its_lock(device, tmp_path):
    with StateLock(tmp_path / "state"):
        report = examine("device", *device)
    assert report.failed == set()
    assert f"process {os.getpid()}" in report.seen("program")
    assert f"in use by process {os.getpid()}" in report.seen("database")


def test_a_person_gets_a_table_with_what_to_do(elsewhere, unused_port):
    result = run(*elsewhere(f"mqtt://127.0.0.1:{unused_port}"))
    assert result.exit_code == 1
    assert "broker.port" in result.output
    assert "correct the port in the broker's URL" in " ".join(result.output.split())
    assert "1 failed" in result.output


@pytest.mark.parametrize(
    "arguments",
    [(), ("printer",), ("central", "--region", "north"), ("device", "--answer-s", "0")],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(arguments, monkeypatch, tmp_path):
    monkeypatch.setattr("fedfleet.commands.doctor.INSTALLED", tmp_path)
    assert run(*arguments).exit_code == 2


def test_the_one_program_that_is_installed_need_not_be_named(device, tmp_path, monkeypatch):
    flags = dict(zip(device[::2], device[1::2], strict=True))
    lines = [f'{name[2:].replace("-", "_")} = "{value}"' for name, value in flags.items()]
    text = "\n".join(lines).replace('data = "digits"', 'data = ["digits"]')
    (tmp_path / "device.toml").write_text(text)
    monkeypatch.setattr("fedfleet.commands.doctor.INSTALLED", tmp_path)
    monkeypatch.setattr("fedfleet.commands.doctor.STATES", tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    report = examine()
    assert report.failed == set()
    assert str(tmp_path / "device.toml") in report.seen("settings")
    assert str(tmp_path / "fedfleet-device") in report.seen("database")
