"""Runs the blocks of commands in the pages for operators, each by the test that it names."""

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from central.adapters.store import SCHEMA, SCHEMA_VERSION
from fedfleet.doctor import broker_visit, python_checks
from tests.support.brokers import HOST, mosquitto_broker
from tests.support.certificates import make_certificates
from tests.support.doctor_reports import examine
from tests.support.documented_commands import ROOT, run_blocks
from transport.database import open_database
from transport.fence import Fence

DEVICE = 'region = "north"\nid = "d1"\ndata = ["digits"]\nbackend = "onnx"\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder in which a person types; the doctor's wheels are loaded by its own tests."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("FEDFLEET_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(python_checks, "_run", lambda *_: python_checks.Outcome("1.0", 0))
    monkeypatch.setattr(broker_visit, "_LISTEN_S", 0.1)
    return tmp_path


@pytest.fixture
def broker():
    with mosquitto_broker() as running:
        yield running


@pytest.fixture
def central_state(here):
    with closing(open_database(here / "state/central/central.db", SCHEMA, SCHEMA_VERSION)) as made:
        Fence.claim(made)
    return here / "state" / "central"


def write_settings(url, **more):
    lines = [f'{name} = "{value}"\n' for name, value in more.items()]
    Path("device.toml").write_text(f'broker = "{url}"\n' + DEVICE + "".join(lines))
    Path("gateway.toml").write_text(f'broker = "{url}"\nregion = "north"\n')


def test_the_doctor_examines_each_program(here, broker):
    write_settings(broker.url)
    device, gateway = run_blocks("test_the_doctor_examines_each_program", here)
    assert "0 failed" in device
    assert '"program": "gateway"' in gateway


def test_a_person_sees_who_is_there(central_state, broker, monkeypatch):
    monkeypatch.setenv("FEDFLEET_BROKER", broker.url)
    run_blocks("test_a_person_sees_who_is_there", Path.cwd())


def test_a_backup_is_taken_and_put_back(central_state):
    outputs = run_blocks("test_a_backup_is_taken_and_put_back", Path.cwd())
    assert len(outputs) == 4
    assert Path("backup-2026-01-31").is_dir()
    (aside,) = central_state.glob("replaced-*")
    assert (aside / "central.db").is_file()
    assert (central_state / "central.db").is_file()


def test_a_password_is_rotated(here):
    Path("passwords").touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", "passwords", "d1", "old-password"], check=True)
    lines = ["user root", "allow_anonymous false", f"password_file {here / 'passwords'}"]
    with mosquitto_broker(extra="\n".join(lines) + "\n") as own:
        Path("mosquitto.pid").write_text(f"{own.pid}\n")
        url = f"mqtt://d1:{{}}-password@{HOST}:{own.port}"
        flags = ("device", "--config", "device.toml", "--broker")
        write_settings(url.format("old"))
        assert examine(*flags, url.format("old")).failed == set()
        run_blocks("test_a_password_is_rotated", here)
        assert examine(*flags, url.format("new")).failed == set()
        assert examine(*flags, url.format("old")).failed == {"broker.login"}


def test_a_ca_is_rotated(here):
    for name in ("old", "new"):
        Path(name).mkdir()
        make_certificates(here / name)
        shutil.copy(f"{name}/ca.pem", f"{name}-ca.pem")
    lines = "cafile {0}/ca.pem\ncertfile {0}/server.pem\nkeyfile {0}/server.key\n"
    outputs = []
    for name in ("old", "new"):
        with mosquitto_broker(extra="user root\n" + lines.format(here / name)) as own:
            write_settings(f"mqtts://{HOST}:{own.port}", ca_file=here / "ca.pem")
            outputs += run_blocks("test_a_ca_is_rotated", here)
    assert sum("0 failed" in text for text in outputs) == 2


def test_a_new_broker_is_examined_before_the_move(here, broker, monkeypatch):
    write_settings("mqtt://127.0.0.1:1")
    parse = broker_visit.parse_broker_url

    def resolved(url):
        """The page's name of the new broker is this one's."""
        return parse(broker.url if url == "mqtt://new-broker:1883" else url)

    monkeypatch.setattr(broker_visit, "parse_broker_url", resolved)
    texts = run_blocks("test_a_new_broker_is_examined_before_the_move", here)
    assert ["0 failed" in text for text in texts] == [True, True]


def test_the_secrets_of_an_overlay_are_written(here):
    shutil.copytree(ROOT / "deploy" / "kubernetes", here / "deploy" / "kubernetes")
    first, renewed = run_blocks("test_the_secrets_of_an_overlay_are_written", here)
    assert sorted(first.split()) == sorted(renewed.split())
    assert len(first.split()) == 8
    written = here / "deploy/kubernetes/overlays/edge-fleet/secrets/passwords"
    assert "change-me" not in written.read_text()
