"""Nothing is promised before it is on disk: read from the system calls of the real programs."""

import re

import pytest

from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_books import Books
from tests.support.syscalls import (
    acknowledgements,
    parse_trace,
    receipts,
    traced,
    unproven,
)

TRACED = ("central", "gateway-north", "d1")
ROUNDS = 4
MODEL = re.compile(rb'"model":\{[^{}]*"sha256":"([0-9a-f]{64})"')
_SYNC = re.compile(r"^.* (?:fdatasync|fsync)\(.*-wal>.*$\n?", re.MULTILINE)


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Run a task over a few rounds, in one of which central is deaf for a while."""
    folder = tmp_path_factory.mktemp("traced")
    shape = Shape(devices=("d1", "d2"), regions=("north",), protocol="3.1.1")
    files = {name: folder / f"{name}.trace" for name in TRACED}

    def trace(fleet):
        for name, file in files.items():
            program = fleet.program(name)
            program.command = traced(program.command, file)

    with running_fleet(folder, shape, prepare=trace) as fleet:
        task = fleet.submit({"task": "traced", "model": "mlp", "data": "digits", "rounds": ROUNDS})
        fleet.wait_for(task, lambda status: status["committed"] >= 1)
        fleet.freeze("central")
        held = fleet.watcher.wait(
            lambda: b'"status":"held"' in files["gateway-north"].read_bytes().replace(b"\\", b""),
            30.0,
        )
        fleet.thaw("central")
        fleet.complete(task, within_s=120.0)
        assert held, "the gateway never said held"
        count = len(Books(fleet.state_dir("central"), task).contributions())
        for name in TRACED:
            fleet.program(name).stop()
    return {name: file.read_text(errors="replace") for name, file in files.items()}, count


def centrals(calls):
    return receipts(calls, b"fl/v1/gw/north/up/m/", b"fl/v1/gw/north/dn/rcpt/")


def gateways(calls, holding=b""):
    found = []
    for device in (b"d1", b"d2"):
        place = b"fl/v1/north/" + device
        found += receipts(calls, place + b"/up/m/", place + b"/dn/rcpt/", holding)
    return found


def devices(calls):
    return acknowledgements(calls, b"fl/v1/north/d1/dn/task", MODEL) + acknowledgements(
        calls, b"fl/v1/north/all/dn/task", MODEL
    )


def test_central_sends_no_receipt_before_the_contribution_is_on_disk(traces):
    texts, count = traces
    calls = parse_trace(texts["central"])
    promised = centrals(calls)
    assert len(promised) >= count >= 2 * ROUNDS
    assert unproven(calls, promised, "central.db-wal") == []


def test_the_gateway_says_nothing_before_its_custody_is_on_disk(traces):
    texts, count = traces
    calls = parse_trace(texts["gateway-north"])
    held = gateways(calls, b'"status":"held"')
    assert held
    every = gateways(calls)
    assert len(every) >= count + len(held)
    assert unproven(calls, every, "gateway.db-wal") == []


def test_a_device_acknowledges_no_assignment_before_its_job_is_on_disk(traces):
    texts, _ = traces
    calls = parse_trace(texts["d1"])
    promised = devices(calls)
    assert len(promised) >= ROUNDS
    assert unproven(calls, promised, "device.db-wal") == []


@pytest.mark.parametrize(
    ("name", "wal", "promises"),
    [
        ("central", "central.db-wal", centrals),
        ("gateway-north", "gateway.db-wal", gateways),
        ("d1", "device.db-wal", devices),
    ],
)
def test_the_same_trace_without_its_syncs_proves_nothing(traces, name, wal, promises):
    texts, _ = traces
    calls = parse_trace(_SYNC.sub("", texts[name]))
    promised = promises(calls)
    assert promised
    assert len(unproven(calls, promised, wal)) == len(promised)
