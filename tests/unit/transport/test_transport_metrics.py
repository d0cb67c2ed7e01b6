"""The page that Prometheus reads, and the snapshot that the loop takes for it."""

import socket
import sqlite3
import struct
import sys
import threading
import urllib.error
from contextlib import closing

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, Gauge

from central import app as central_app
from central.cli import central
from regional_gateway import app as gateway_app
from regional_gateway.cli import gateway
from tests.support.brokers import HOST, free_port
from tests.support.scraping import fetch
from transport.measuring import MetricsError, Unmeasured
from transport.metrics_server import MetricsServer
from transport.program_metrics import Codes
from transport.snapshots import Snapshots


@pytest.fixture
def registry():
    made = CollectorRegistry()
    Gauge("answer", "What it is.", registry=made).set(42)
    return made


def test_there_is_one_page_and_nothing_else(registry):
    port = free_port()
    server = MetricsServer(registry, HOST, port)
    server.start()
    assert "answer 42.0\n" in fetch(port)
    assert "answer 42.0\n" in fetch(port, "/metrics?name[]=any")
    for path, method, code in (
        ("/", "GET", 404),
        ("/../x", "GET", 404),
        ("/metrics", "POST", 501),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            fetch(port, path, method)
        assert error.value.code == code
        error.value.close()
    server.close()
    with pytest.raises(urllib.error.URLError):
        fetch(port)


def test_a_client_that_says_nothing_keeps_nobody_from_the_page(registry):
    port = free_port()
    server = MetricsServer(registry, HOST, port)
    server.start()
    with socket.create_connection((HOST, port)):
        assert "answer 42.0\n" in fetch(port)
    server.close()


def test_a_client_that_hangs_up_in_the_middle_is_no_fault(registry, capfd):
    port = free_port()
    server = MetricsServer(registry, HOST, port)
    server.start()
    for request in (b"GET /met", b"GET /metrics HTTP/1.0\r\n\r\n"):
        client = socket.create_connection((HOST, port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(request)
        client.close()  # by a reset
    assert "answer 42.0\n" in fetch(port)
    server.close()
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_told_in_one_line_that_names_it():
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetricsError) as error:
            MetricsServer(CollectorRegistry(), HOST, port)
    text = str(error.value)
    assert text.startswith(f"metrics_port: cannot listen on {HOST}, port {port}: ")
    assert "\n" not in text


def test_a_server_that_never_answered_releases_its_port():
    port = free_port()
    MetricsServer(CollectorRegistry(), HOST, port).close()
    MetricsServer(CollectorRegistry(), HOST, port).close()


def test_a_snapshot_is_taken_only_if_somebody_asks():
    taken = []
    snapshots = Snapshots(taken.append, lambda: 5.0)
    snapshots.answer()
    assert taken == []
    assert snapshots.ask(snapshots.answer, 0.0) is not None
    snapshots.answer()
    assert taken == [5.0]


def test_the_asker_gets_the_snapshot_that_was_taken_after_the_question():
    numbers = iter(range(10))
    snapshots = Snapshots(lambda _: next(numbers), lambda: 0.0)
    loop = threading.Thread

    def wake():
        loop(target=snapshots.answer).start()

    assert snapshots.ask(wake, 5.0).content == 0
    assert snapshots.ask(wake, 5.0).content == 1


def test_a_loop_that_is_stuck_leaves_the_old_snapshot_and_its_age():
    clock = [10.0]
    snapshots = Snapshots(lambda now_s: f"at {now_s:g}", lambda: clock[0])
    assert snapshots.ask(lambda: None, 0.01) is None
    snapshots.answer()
    clock[0] = 25.0
    found = snapshots.ask(lambda: None, 0.01)
    assert found.content == "at 10"
    assert snapshots.age_s(found) == 15.0


def test_codes_out_of_messages_are_bounded():
    codes = Codes()
    found = {codes.of(f"E_{number}") for number in range(1000)}
    assert len(found) == 64
    assert "other" in found
    assert codes.of(None) == "none"
    assert codes.of("E_0") == "E_0"


def test_without_metrics_the_handler_stays_as_it_is():
    handler = object()
    assert Unmeasured().observe(handler, lambda _: None) is handler


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [(central, []), (gateway, ["--region", "eu"])],
    ids=["central", "gateway"],
)
def test_without_the_library_a_person_is_told_what_to_install(
    tmp_path, monkeypatch, verb, arguments
):
    users = ("central.adapters.metrics", "regional_gateway.adapters.metrics")
    for name in (*users, "transport.program_metrics", "transport.metrics_server"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    flags = ["--state-dir", str(tmp_path), "--metrics-port", str(free_port())]
    result = CliRunner().invoke(verb, [*arguments, *flags])
    assert result.exit_code == 1
    assert "pip install 'fedfleet[gateway]'" in result.output


def lives(database):
    """Return how many lives of a program a database knows of."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT count(*) FROM boot WHERE boot > 0").fetchone()[0]


@pytest.mark.parametrize(
    ("verb", "arguments", "database"),
    [(central, [], "central.db"), (gateway, ["--region", "eu"], "gateway.db")],
    ids=["central", "gateway"],
)
def test_a_port_in_use_ends_a_program_before_it_claims_its_database(
    tmp_path, verb, arguments, database
):
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = ["--state-dir", str(tmp_path), "--metrics-port", port]
        result = CliRunner().invoke(verb, [*arguments, *flags])
    assert result.exit_code == 1
    assert f"metrics_port: cannot listen on {HOST}, port {port}" in result.output
    assert lives(tmp_path / database) == 0


@pytest.mark.parametrize(
    ("verb", "app", "arguments"),
    [(central, central_app, []), (gateway, gateway_app, ["--region", "eu"])],
    ids=["central", "gateway"],
)
def test_flags_and_the_environment_become_settings(monkeypatch, verb, app, arguments):
    found = []
    monkeypatch.setattr(app, "run", lambda settings: found.append(settings) or 0)
    flags = ["--metrics-host", "0.0.0.0", "--metrics-device-labels"]
    environment = {"FEDFLEET_METRICS_PORT": "9108"}
    assert CliRunner().invoke(verb, [*arguments, *flags], env=environment).exit_code == 0
    assert CliRunner().invoke(verb, arguments).exit_code == 0
    told = [(s.metrics_port, s.metrics_host, s.metrics_device_labels) for s in found]
    assert told == [(9108, "0.0.0.0", True), (None, "127.0.0.1", False)]
    refused = CliRunner().invoke(verb, [*arguments, "--metrics-port", "70000"])
    assert refused.exit_code == 2
    assert "metrics_port" in refused.output
