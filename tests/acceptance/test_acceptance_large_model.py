"""A model of 40 MB through a whole fleet: no large packets, one copy a region, little memory."""

import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from schemas.limits import DEFAULT_CHUNK_BYTES, MIB
from schemas.topics import Address, Kind, TopicError, parse
from tests.support.fleet import Shape, running_fleet
from tests.support.fleet_watch import Tap

DEVICES = tuple(f"d{index}" for index in range(1, 9))
HIDDEN = 3100
UNLIMITED = "max_queued_messages 0\n"
SAMPLE_S = 0.05
SETTLE_S = 1.0
WRITE_S = 60.0
#: In models of 40 MB, over what a process took before.
GROWTH_LIMIT = 4


@pytest.fixture
def fleet(tmp_path):
    # The broker must not drop what the tap is slow to read.
    with running_fleet(tmp_path, Shape(devices=DEVICES), extra=UNLIMITED) as running:
        yield running


@pytest.fixture
def tap(fleet):
    opened = Tap(fleet.broker.port, "fl/v1/#")
    yield opened
    opened.close()


def run(fleet, task, hidden):
    """Complete a task of one round without training; its model is written out at the end."""
    fleet.submit(
        {
            "task": task,
            "model": "mlp",
            "model_params": {"hidden": [hidden, hidden]},
            "data": "digits",
            "rounds": 1,
            "min_clients": len(DEVICES),
            "training": {"epochs": 0},
            "codec": "raw-f32",
        }
    )
    status = fleet.complete(task, within_s=240)
    written = fleet.state_dir("central") / "models" / task / "model.onnx"
    end = time.monotonic() + WRITE_S
    while not written.exists():
        assert time.monotonic() < end, fleet.program("central").tail
        time.sleep(SAMPLE_S)
    time.sleep(SETTLE_S)
    return status


@contextmanager
def sampled_memory(fleet):
    """Yield a dictionary that fills with the largest RSS of each process, in bytes."""
    highest = Counter()
    ended = threading.Event()

    def sample():
        while not ended.wait(SAMPLE_S):
            for name, program in fleet.programs.items():
                highest[name] = max(highest[name], program.rss_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def blocks_of(tap, sha16):
    """Return how often each block of a model was sent, by the subtree that it was sent to."""
    found = {}
    for seen in tap.seen:
        try:
            topic = parse(seen.topic)
        except TopicError:
            continue
        if topic.kind is Kind.BLOCK and topic.sha16 == sha16:
            found.setdefault(topic.address, Counter())[topic.k] += 1
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_of_40_mb_reaches_eight_devices_in_small_pieces_and_little_memory(fleet, tap):
    run(fleet, "small", 32)
    idle = {name: program.rss_bytes() for name, program in fleet.programs.items()}
    began_s = time.monotonic()
    with sampled_memory(fleet) as highest:
        status = run(fleet, "large", HIDDEN)
    seconds = time.monotonic() - began_s
    tap.drain()
    model_bytes = 4 * status["parameters"]
    assert 38 * MIB > model_bytes > 37 * MIB
    assert status["updates_accepted"] == len(DEVICES)
    print(f"\n{model_bytes / 1e6:.1f} MB to {len(DEVICES)} devices and back in {seconds:.1f} s")  # noqa: T201 - seen with -s

    largest = max(tap.seen, key=lambda seen: seen.size)
    assert largest.size <= MIB, largest.topic
    print(f"{len(tap.seen)} messages, the largest {largest.size} bytes on {largest.topic}")  # noqa: T201 - seen with -s

    sent = blocks_of(tap, status["model_sha256"][:16])
    one_copy = Counter(range(-(-model_bytes // DEFAULT_CHUNK_BYTES)))
    for region in fleet.shape.regions:
        for address in (Address.of_gateway(region), Address.of_everyone(region)):
            copies = sent.pop(address)
            repairs = {k: times for k, times in copies.items() if times > 1}
            assert copies == one_copy, f"{address}: sent more or less than once: {repairs}"
    repaired = {address.node: sum(copies.values()) for address, copies in sent.items()}
    print(f"one copy of {len(one_copy)} blocks a region; repairs to devices: {repaired}")  # noqa: T201 - seen with -s
    assert sum(repaired.values()) < len(one_copy), repaired

    growth = {name: (highest[name] - idle[name]) / 1e6 for name in fleet.programs}
    numbers = ", ".join(
        f"{name} {grown:.0f} MB over {idle[name] / 1e6:.0f}" for name, grown in growth.items()
    )
    print(numbers)  # noqa: T201 - seen with -s
    limit = GROWTH_LIMIT * model_bytes / 1e6
    assert max(growth.values()) <= limit, f"at most {limit:.0f} MB: {numbers}"
