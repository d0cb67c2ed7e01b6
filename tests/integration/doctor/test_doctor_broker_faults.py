"""Faults of a broker, of its rights and of the clock: found, named, and what to do about them."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import closing

import pytest

from central.service.announcements import state_message
from fedfleet.doctor import clock_checks, examination
from tests.support.brokers import mosquitto_broker
from tests.support.certificates import make_certificates
from tests.support.doctor_reports import examine
from tests.support.fleet_watch import publish

DAY_S = 86_400.0
IN_2020 = (
    "-cert ca.pem -keyfile ca.key -in server.csr "
    "-startdate 20200101000000Z -enddate 20200201000000Z"
)
OWN = "fl/v1/north/d1"


def test_a_wrong_port_is_found(elsewhere, unused_port):
    report = examine(*elsewhere(f"mqtt://127.0.0.1:{unused_port}"))
    assert report.failed == {"broker.port"}
    assert f":{unused_port} cannot be reached" in report.seen("broker.port")
    assert "correct the port" in report.advice("broker.port")


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
        monkeypatch.setattr(clock_checks, "_SETTLED_S", 0.0)
    monkeypatch.setattr(examination, "now_s", lambda: now_s + days * DAY_S)
    monkeypatch.setattr(clock_checks, "is_synchronized", lambda: False)
    report = examine("device", *device)
    assert "clock" in report.failed
    assert ("1.0 days" in report.seen("clock"), "timedatectl" in report.advice("clock")) == (
        True,
    ) * 2


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
