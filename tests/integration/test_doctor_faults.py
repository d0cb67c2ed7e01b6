"""Faults planted into a healthy set-up: the doctor finds each, names it and says what to do."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from types import SimpleNamespace

import psutil
import pytest
from click.testing import CliRunner

from central.service.announcements import state_message
from device_agent.adapters.store import open_store
from fedfleet.cli import cli
from fedfleet.doctor import broker_visit, clock_checks, examination, python_checks
from tests.support.brokers import free_port, mosquitto_broker
from tests.support.certificates import make_certificates
from tests.support.fleet_watch import publish
from tests.support.small_disks import small_disk
from transport.state_lock import StateLock

DAY_S = 86_400.0
IN_2020 = (
    "-cert ca.pem -keyfile ca.key -in server.csr "
    "-startdate 20200101000000Z -enddate 20200201000000Z"
)
DEVICE = ("--region", "north", "--id", "d1", "--data", "digits")
OWN = "fl/v1/north/d1"


def run(*arguments):
    return CliRunner().invoke(cli, ["doctor", *map(str, arguments)])


class Report:
    """What the doctor said of one set-up."""

    def __init__(self, result):
        assert result.exit_code in (0, 1), result.output
        told = json.loads(result.stdout)
        self.status = told["status"]
        self.findings = {one["check"]: one for one in told["findings"]}
        failed = [one for one in told["findings"] if one["status"] == "failed"]
        self.failed = {one["check"] for one in failed}
        assert (result.exit_code == 1) == bool(failed) == (self.status == "failed")
        assert all(one["advice"] for one in told["findings"] if one["status"] != "ok")

    def seen(self, check):
        return self.findings[check]["seen"]

    def advice(self, check):
        return self.findings[check]["advice"]


def examine(*arguments):
    return Report(run(*arguments, "--answer-s", "0.4", "--json"))


@pytest.fixture(scope="module")
def broker():
    with mosquitto_broker() as running:
        yield running


@pytest.fixture(autouse=True)
def short_and_without_settings(monkeypatch):
    monkeypatch.setattr(broker_visit, "_LISTEN_S", 0.1)
    for name in os.environ:
        if name.startswith("FEDFLEET_") or name == "MIN_CLIENTS":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def wheels(request, monkeypatch):
    """What loading a wheel came to; the tests that are about wheels load them."""
    if "real_wheels" not in request.fixturenames:
        loaded = python_checks.Outcome("1.0", 0)
        monkeypatch.setattr(python_checks, "_run", lambda *_: loaded)


@pytest.fixture
def real_wheels():
    """Asked for by a test whose wheels are really loaded."""


@pytest.fixture
def device(broker, tmp_path):
    """The flags of a device that is well."""
    state_dir = tmp_path / "state"
    with closing(open_store(state_dir / "device.db")):
        pass
    return (*DEVICE, "--broker", broker.url, "--state-dir", state_dir, "--backend", "onnx")


@pytest.fixture
def elsewhere(tmp_path):
    """The flags of a device whose broker is the test's own."""
    return lambda url: ("device", *DEVICE, "--broker", url, "--state-dir", tmp_path / "state")


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


def test_a_wrong_port_is_found(elsewhere, unused_port):
    report = examine(*elsewhere(f"mqtt://127.0.0.1:{unused_port}"))
    assert report.failed == {"broker.port"}
    assert f":{unused_port} cannot be reached" in report.seen("broker.port")
    assert "correct the port" in report.advice("broker.port")


@pytest.fixture
def unused_port():
    return free_port()


def test_a_port_of_something_else_is_found(elsewhere):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        report = examine(*elsewhere(f"mqtt://127.0.0.1:{port}"))
    assert report.failed == {"broker.login"}
    assert "is it an MQTT broker" in report.advice("broker.login")


def test_a_name_that_nobody_knows_is_found(elsewhere):
    report = examine(*elsewhere("mqtt://broker.invalid"))
    assert report.failed == {"broker.name"}
    assert "broker.invalid cannot be resolved" in report.seen("broker.name")
    assert "/etc/resolv.conf" in report.advice("broker.name")


def test_a_wrong_password_is_found(elsewhere, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", passwords, "d1", "right"], check=True)
    with mosquitto_broker(
        extra=f"user root\npassword_file {passwords}\nallow_anonymous false\n"
    ) as own:
        url = f"mqtt://d1:%s@127.0.0.1:{own.port}"
        report = examine(*elsewhere(url % "sesame"))
        assert report.failed == {"broker.login"}
        assert "refused with user 'd1'" in report.seen("broker.login")
        assert "correct user and password" in report.advice("broker.login")
        assert "sesame" not in json.dumps(report.findings)
        assert examine(*elsewhere(url % "right")).failed == set()


ACLS = {
    "nothing may be published": (f"topic read {OWN}/#", "broker.publish", "write"),
    "nothing may be read": (f"topic write {OWN}/#", "broker.listen", "read"),
    "another subtree": ("topic readwrite fl/v1/south/#", "broker.publish", "write"),
}


@pytest.mark.parametrize("acl", ACLS.values(), ids=ACLS)
def test_a_denying_access_list_is_found(elsewhere, tmp_path, acl):
    rules, check, right = acl
    (tmp_path / "acl").write_text(f"{rules}\n")
    (tmp_path / "acl").chmod(0o600)
    with mosquitto_broker(extra=f"user root\nacl_file {tmp_path / 'acl'}\n") as own:
        report = examine(*elsewhere(own.url))
    assert check in report.failed
    assert "access list" in report.advice(check)
    assert f"{right} {OWN}" in report.advice(check)


STRICT = f"topic write {OWN}/up/#\ntopic read {OWN}/dn/#\ntopic read fl/v1/north/all/dn/#\n"
PROOFS = f"topic read {OWN}/up/probe/#\ntopic write {OWN}/dn/probe/#\n"


@pytest.mark.parametrize(("more", "proved"), [("", False), (PROOFS, True)])
def test_a_strict_access_list_is_no_failure_and_can_be_made_provable(
    elsewhere, tmp_path, more, proved
):
    (tmp_path / "acl").write_text(STRICT + more)
    (tmp_path / "acl").chmod(0o600)
    with mosquitto_broker(extra=f"user root\nacl_file {tmp_path / 'acl'}\n") as own:
        report = examine(*elsewhere(own.url))
    assert report.failed == set()
    for name in ("publish", "listen", "packet_size"):
        assert (report.findings[f"broker.{name}"]["status"] == "ok") is proved
    if not proved:
        assert f"read {OWN}/up/probe/#" in report.advice("broker.publish")
        assert f"write {OWN}/dn/probe/#" in report.advice("broker.listen")


LIMITS = {
    "the packet limit": ("max_packet_size 4096", "auto", "the broker says 4.1 kB"),
    "the message limit": ("message_size_limit 4096", "auto", "16.4 kB was"),
    "told to nobody": ("message_size_limit 4096", "3.1.1", "acknowledged, but never delivered"),
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_a_limit_of_4_kb_is_found(elsewhere, limit):
    line, protocol, words = limit
    with mosquitto_broker(extra=f"{line}\n") as own:
        report = examine(*elsewhere(own.url), "--mqtt-protocol", protocol)
    assert report.failed == {"broker.packet_size"}
    assert words in report.seen("broker.packet_size")
    assert "max_packet_size 1048576" in report.advice("broker.packet_size")


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_off_by_a_day_is_found(device, broker, monkeypatch, days):
    now_s = time.time()
    state = state_message("online", 1, now_s, None)
    done = publish(broker.port, state.topic.name, state.payload, "-r")
    assert done.returncode == 0
    if days > 0:  # behind a retained word, only the broker's uptime tells how old it may be
        monkeypatch.setattr(clock_checks, "of_hardware", list)
    monkeypatch.setattr(examination, "now_s", lambda: now_s + days * DAY_S)
    monkeypatch.setattr(clock_checks, "is_synchronized", lambda: False)
    report = examine("device", *device)
    assert "clock" in report.failed
    assert ("1.0 days" in report.seen("clock"), "timedatectl" in report.advice("clock")) == (
        True,
    ) * 2


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


def tls_broker(folder):
    files = f"cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
    return mosquitto_broker(extra=f"user root\n{files}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


def with_ca(elsewhere, url, folder, monkeypatch):
    monkeypatch.setenv("FEDFLEET_CA_FILE", str(folder / "ca.pem"))
    return elsewhere(url)


def test_an_expired_certificate_is_found(elsewhere, certificates, tmp_path, monkeypatch):
    folder = shutil.copytree(certificates, tmp_path / "old")
    issue_expired(folder)
    with tls_broker(folder) as own:
        url = f"mqtts://127.0.0.1:{own.port}"
        report = examine(*with_ca(elsewhere, url, folder, monkeypatch))
    assert report.failed == {"broker.tls", "broker.certificate"}
    assert "expired" in report.seen("broker.tls")
    assert "days ago" in report.seen("broker.certificate")
    assert "issue it anew" in report.advice("broker.certificate")


def issue_expired(folder):
    """Sign the server's key for the year 2020."""
    (folder / "index").touch()
    (folder / "serial").write_text("01\n")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n"
    )
    for command in (
        "openssl req -new -key server.key -subj /CN=server -out server.csr",
        f"openssl ca -batch -notext -config ca.conf -extensions e {IN_2020} -out server.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def test_a_certificate_for_another_host_is_found(elsewhere, certificates, monkeypatch):
    with tls_broker(certificates) as own:
        url = f"mqtts://localhost:{own.port}"
        report = examine(*with_ca(elsewhere, url, certificates, monkeypatch))
        assert report.failed == {"broker.tls"}
        assert "localhost" in report.seen("broker.tls")
        assert "the name that the broker's certificate was issued for" in report.advice(
            "broker.tls"
        )
        well = examine(*elsewhere(f"mqtts://127.0.0.1:{own.port}"))
        assert well.failed == set()
        assert "expires in 2.0 days" in well.seen("broker.certificate")


def test_a_certificate_of_an_unknown_ca_is_found(elsewhere, certificates):
    with tls_broker(certificates) as own:
        report = examine(*elsewhere(f"mqtts://127.0.0.1:{own.port}"))
    assert report.failed == {"broker.tls"}
    assert "ca_file" in report.advice("broker.tls")


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


def test_nothing_of_the_doctor_stays_at_the_broker(broker, device):
    examine("device", *device)
    told = subprocess.run(
        ["mosquitto_sub", "-p", str(broker.port), "-t", "#", "-W", "1", "-v"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "probe" not in told.stdout
    assert "doctor" not in told.stdout


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
    report = examine()
    assert report.failed == set()
    assert str(tmp_path / "device.toml") in report.seen("settings")
