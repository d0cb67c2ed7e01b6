"""A broker and a device that are well, into which tests plant their faults."""

import os
from contextlib import closing

import pytest

from device_agent.adapters.store import open_store
from fedfleet.doctor import broker_visit, python_checks
from tests.support.brokers import free_port, mosquitto_broker
from tests.support.doctor_reports import DEVICE


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


@pytest.fixture
def unused_port():
    return free_port()
