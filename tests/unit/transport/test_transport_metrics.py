"""The page that Prometheus reads, and the snapshot that the loop takes for it."""

import socket
import subprocess
import sys
import threading
import urllib.error

import pytest
from prometheus_client import CollectorRegistry, Gauge

from tests.support.brokers import HOST, free_port
from tests.support.scraping import fetch
from transport.measuring import MetricsError, Unmeasured
from transport.metrics_server import MetricsServer
from transport.program_metrics import Codes
from transport.snapshots import Snapshots

_NOT_INSTALLED = """
import sys
sys.modules["prometheus_client"] = None
from fedfleet.cli import main
main()
"""


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
    for path, method, code in (("/", "GET", 404), ("/../x", "GET", 404), ("/metrics", "POST", 501)):
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
    "program", [("central",), ("gateway", "--region", "eu")], ids=lambda argv: argv[0]
)
def test_without_the_library_a_person_is_told_what_to_install(tmp_path, program):
    port = str(free_port())
    command = [*program, "--metrics-port", port, "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(
        [sys.executable, "-c", _NOT_INSTALLED, *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'fedfleet[gateway]'" in done.stderr
    assert "Traceback" not in done.stderr
