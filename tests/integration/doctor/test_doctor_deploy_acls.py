"""The brokers' access lists of deploy/kubernetes, on a real Mosquitto: enough, and not more."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.brokers import HOST, mosquitto_broker
from tests.support.doctor_reports import examine
from tests.support.fleet_watch import mosquitto_client

MANIFESTS = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
PROVED = ("subscribe", "publish", "listen", "packet_size", "session")


@contextmanager
def broker_with(folder, users, tmp_path):
    """Mosquitto with the settings and the access list of one folder, and users of a password."""
    (tmp_path / "acl").write_text((MANIFESTS / folder / "acl").read_text())
    passwords = tmp_path / "passwords"
    passwords.write_text("".join(f"{user}:sesame\n" for user in users))
    for path in (tmp_path / "acl", passwords):
        path.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
    lines = ["user root", "allow_anonymous false", f"password_file {passwords}"]
    lines.append(f"acl_file {tmp_path / 'acl'}")
    with mosquitto_broker(extra="\n".join(lines) + "\n") as running:
        yield lambda user: f"mqtt://{user}:sesame@{HOST}:{running.port}"


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    users = ("central", "operator", "north", "south")
    with broker_with("base", users, tmp_path_factory.mktemp("core")) as url:
        yield url


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    with broker_with("region", ("gateway", "devices"), tmp_path_factory.mktemp("region")) as url:
        yield url


def test_central_may_do_all_that_it_must(core, tmp_path):
    report = examine("central", "--broker", core("central"), "--state-dir", tmp_path)
    assert report.failed == set()
    assert {report.findings[f"broker.{name}"]["status"] for name in PROVED} == {"ok"}


def test_a_gateway_may_do_all_that_it_must_on_both_sides(core, region, tmp_path):
    flags = ("--region", "north", "--broker", region("gateway"), "--uplink", core("north"))
    report = examine("gateway", *flags, "--state-dir", tmp_path)
    assert report.failed == set()
    for link in ("uplink", "downlink"):
        assert {report.findings[f"{link}.{name}"]["status"] for name in PROVED} == {"ok"}


def test_a_device_may_do_all_that_it_must(region, tmp_path):
    flags = ("--region", "north", "--id", "d1", "--data", "digits", "--backend", "onnx")
    report = examine("device", *flags, "--broker", region("devices"), "--state-dir", tmp_path)
    assert report.failed == set()
    assert {report.findings[f"broker.{name}"]["status"] for name in PROVED} == {"ok"}


def test_a_gateway_may_not_speak_for_another_region(core, region, tmp_path):
    flags = ("--region", "north", "--broker", region("gateway"), "--uplink", core("south"))
    report = examine("gateway", *flags, "--state-dir", tmp_path)
    assert report.failed == {"uplink.publish"}
    assert "the broker's access list must let south write fl/v1/gw/north/up/#" in report.advice(
        "uplink.publish"
    )


@pytest.mark.parametrize(
    ("user", "topic", "allowed"),
    [
        ("operator", "fl/v1/ctl/task/submit", True),
        ("operator", "fl/v1/ctl/central/state", False),
        ("north", "fl/v1/ctl/task/submit", False),
    ],
)
def test_only_a_person_hands_in_tasks(core, user, topic, allowed):
    port = int(core(user).rpartition(":")[2])
    command = mosquitto_client("mosquitto_pub", port, "-V", "5", "-q", "1", "-d")
    command += ["-u", user, "-P", "sesame", "-t", topic, "-m", "{}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ("RC:135" in done.stdout) is not allowed, done.stdout
