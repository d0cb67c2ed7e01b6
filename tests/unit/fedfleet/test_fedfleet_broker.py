import json
import sys
import types

import pytest
from click.testing import CliRunner

import transport
from fedfleet.cli import cli


class EmbeddedBrokerError(Exception):
    pass


@pytest.fixture
def embedded(monkeypatch):
    """Stands in for ``transport.embedded``; says that it took port 2883 and ends."""
    fake = types.ModuleType("transport.embedded")
    fake.EmbeddedBrokerError = EmbeddedBrokerError
    fake.calls = []

    def run(port, ready, *, host):
        fake.calls.append((host, port))
        ready(port or 2883)

    fake.run = run
    monkeypatch.setitem(sys.modules, "transport.embedded", fake)
    monkeypatch.setattr(transport, "embedded", fake, raising=False)
    return fake


def run(*arguments):
    return CliRunner().invoke(cli, ["broker", *arguments])


def test_one_line_says_where_clients_can_connect(embedded):
    result = run("--port", "1999")
    assert (result.exit_code, result.stdout) == (0, "listening on mqtt://127.0.0.1:1999\n")
    assert embedded.calls == [("127.0.0.1", 1999)]


def test_as_json_the_line_is_an_object_with_the_port_taken(embedded):
    assert json.loads(run("--port", "0", "--json").stdout) == {"host": "127.0.0.1", "port": 2883}


def test_a_broker_that_cannot_run_is_one_line_and_exit_code_1(embedded):
    def refuse(port, ready, *, host):
        message = f"host {host!r}: loopback only"
        raise EmbeddedBrokerError(message)

    embedded.run = refuse
    result = run("--host", "0.0.0.0")
    assert (result.exit_code, result.stderr) == (1, "Error: host '0.0.0.0': loopback only\n")


def test_a_port_that_does_not_exist_is_a_usage_error(embedded):
    assert run("--port", "65536").exit_code == 2
