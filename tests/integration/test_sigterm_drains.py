"""SIGTERM in the middle of a round: the program ends within 10 s, and nothing is lost."""

import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from central.core.strategies.fedavg import FedAvg
from schemas.topics import Kind, TopicError, parse
from tests.support.brokers import REPOSITORY
from tests.support.fleet import CENTRAL, Shape, running_fleet
from tests.support.fleet_books import Books, device_jobs
from tests.support.fleet_watch import Tap

DRAIN_S = 10.0
PLUGINS = REPOSITORY / "tests" / "support" / "plugins"
#: 64 inputs, so many hidden units, 10 classes, float32: some 18 MB.
WIDE = 60_000


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A file; while it is there, aggregations of the slow strategy do not end."""
    return tmp_path_factory.mktemp("held") / "held"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, held):
    folder = tmp_path_factory.mktemp("fleet")
    config = folder / "central.toml"
    config.write_text('[strategies]\nslow = "slow_strategy:make"\n')
    shape = Shape(
        devices=("d1", "d2"),
        central=("--config", str(config)),
        environment={
            "MIN_CLIENTS": "2",
            "PYTHONPATH": str(PLUGINS),
            "FEDFLEET_TEST_HELD": str(held),
        },
    )
    with running_fleet(folder, shape) as running:
        yield running


def until(fleet, condition, what, within_s=60.0):
    end_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end_s:
            fleet.fail(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)


def drain(fleet, name, again_after_s=None):
    """SIGTERM one program, perhaps twice; it must end in order, in time, and say farewell."""
    program = fleet.program(name)
    boot = fleet.boot(name)
    assert boot is not None
    began_s = time.monotonic()
    program.signal(signal.SIGTERM)
    if again_after_s is not None:
        time.sleep(again_after_s)
        program.signal(signal.SIGTERM)
    assert program.wait() == 0, program.tail
    assert time.monotonic() - began_s < DRAIN_S, program.tail
    until(fleet, lambda: fleet.boot(name) is None, f"farewell of {name}", 5.0)
    assert "Traceback" not in program.log
    fleet._boots[name] = boot


def check(fleet, task, rounds):
    status = fleet.complete(task)
    assert (status["committed"], status["abandoned"]) == (rounds, 0)
    books = Books(fleet.state_dir(CENTRAL), task, {"slow": FedAvg})
    books.check()
    assert all(row.settled == "counted" for row in books.contributions())
    assert books.recompute() == [record.model_sha256 for record in books.committed]


def task(fleet, name, **more):
    return fleet.submit({"task": name, "model": "mlp", "data": "digits", "rounds": 2, **more})


def test_a_device_that_trains_stops_and_trains_again_after_its_start(fleet):
    name = task(fleet, "training", training={"epochs": 80})
    jobs = lambda: device_jobs(fleet.state_dir("d1"), name)  # noqa: E731
    until(fleet, lambda: jobs().get(1) == "training", "training on d1")
    drain(fleet, "d1")
    assert jobs()[1] == "training"
    fleet.restart("d1")
    check(fleet, name, 2)
    until(fleet, lambda: set(jobs().values()) == {"done"}, "the last receipt", 10.0)


def outbox(fleet, gateway):
    path = fleet.state_dir(gateway) / "gateway.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("SELECT count(*) FROM outbox").fetchone()[0]


def test_a_gateway_keeps_what_it_has_in_custody(fleet):
    name = task(fleet, "custody", training={"epochs": 10})
    jobs = lambda: device_jobs(fleet.state_dir("d1"), name)  # noqa: E731
    until(fleet, lambda: jobs().get(1) == "training", "training on d1")
    fleet.freeze(CENTRAL)
    gateway = f"gateway-{fleet.shape.region_of('d1')}"
    until(fleet, lambda: outbox(fleet, gateway) == 1, "custody")
    drain(fleet, gateway)
    assert outbox(fleet, gateway) == 1
    fleet.thaw(CENTRAL)
    fleet.restart(gateway)
    check(fleet, name, 2)
    until(fleet, lambda: outbox(fleet, gateway) == 0, "final receipt")


@pytest.mark.parametrize("again_after_s", [None, 0.3])
def test_central_that_aggregates_ends_and_aggregates_again_after_its_start(
    fleet, held, again_after_s
):
    held.touch()
    name = task(fleet, f"aggregating-{again_after_s}".replace(".", "-").lower(), strategy="slow")
    until(fleet, (held.parent / "aggregating").exists, "aggregation")
    drain(fleet, CENTRAL, again_after_s)
    held.unlink()
    fleet.restart(CENTRAL)
    check(fleet, name, 2)
    (held.parent / "aggregating").unlink()


@pytest.mark.long
def test_a_large_upload_goes_on_where_it_was(fleet):
    tap = Tap(fleet.broker.port, f"fl/v1/{fleet.shape.region_of('d1')}/d1/up/c/#", keep_bytes=0)
    name = task(
        fleet,
        "large",
        rounds=1,
        codec="raw-f32",
        model_params={"hidden": [WIDE]},
        training={"epochs": 0},
    )
    until(fleet, lambda: len(tap.seen) >= 8, "the first chunks of d1's update")
    drain(fleet, "d1")
    assert device_jobs(fleet.state_dir("d1"), name) == {1: "uploading"}
    before = {chunk(seen) for seen in tap.seen}
    fleet.restart("d1")
    check(fleet, name, 1)
    tap.drain()
    tap.close()
    again = [chunk(seen) for seen in tap.seen]
    total = len(set(again))
    assert len(before) < total, "the upload was over before the device ended"
    assert len(again) <= total + 8, "chunks that had arrived were sent again"


def chunk(seen):
    try:
        topic = parse(seen.topic)
    except TopicError:
        return None
    return topic.k if topic.kind is Kind.CHUNK else None


def test_a_broker_that_does_not_answer_holds_up_no_end(fleet):
    names = [CENTRAL, "gateway-north", "d2"]
    os.kill(fleet.broker.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        for name in names:
            fleet.program(name).signal(signal.SIGTERM)
        codes = {name: fleet.program(name).wait() for name in names}
        assert time.monotonic() - began_s < DRAIN_S
    finally:
        os.kill(fleet.broker.pid, signal.SIGCONT)
    assert codes == dict.fromkeys(names, 0)
    for name in names:
        until(fleet, lambda name=name: fleet.boot(name) is None, f"Will of {name}", 15.0)
    fleet.restart(*names)
