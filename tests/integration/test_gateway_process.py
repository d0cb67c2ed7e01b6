"""The gateway as a process between two Mosquittos: rounds, kills, memory, farewell."""

import time
from contextlib import ExitStack

import numpy as np
import pytest
from gateway_process import GATEWAY, GatewayProcess, PlayedCentral, PlayedDevice

from schemas.envelope import decode_frame, encode_frame
from schemas.ids import transfer_id
from schemas.limits import DEFAULT_CHUNK_BYTES, MIB
from schemas.messages import Assignment, GatewayState, Receipt, UpdateManifest
from schemas.topics import Kind, Topic
from tests.support.brokers import mosquitto_broker
from tests.unit.regional_gateway.gateway_rig import TASK
from transport.objects import describe

DATA = b"an update"
LARGE_BYTES = 40 * MIB


@pytest.fixture
def brokers():
    with mosquitto_broker() as central, mosquitto_broker() as region:
        yield central, region


@pytest.fixture
def world(brokers, tmp_path):
    """Central, two devices and a gateway, all connected."""
    central_url, region_url = (broker.url for broker in brokers)
    with ExitStack() as stack:
        central = stack.enter_context(PlayedCentral(central_url))
        devices = [stack.enter_context(PlayedDevice(region_url, name)) for name in ("a", "b")]
        process = GatewayProcess(region_url, central_url, tmp_path / "gw")
        gateway = stack.enter_context(process)
        for device in devices:
            device.born()
            central.wait_for(Kind.RELAYED, device=device.words.name)
        yield central, devices, gateway


def offer(device, data, number=0):
    payload = device.words.manifest(data, number)
    topic = Topic(Kind.MANIFEST, device.words.address, xfer=device.words.xfer(data, number))
    device.publish(topic, payload)
    return payload


def statuses(device, data, count, number=0):
    found = device.wait_for(Kind.RECEIPT, count, xfer=device.words.xfer(data, number))
    return [decode_frame(payload).body(Receipt).status for payload in found]


def test_a_round_passes_through_untouched_and_the_gateway_says_farewell(world):
    central, devices, gateway = world
    payload = central.words.assignment(("a", "b"))
    central.publish(Topic(Kind.TASK, GATEWAY), payload)
    for device in devices:
        assert device.wait_for(Kind.TASK)[0] == payload
        status = device.words.status("accepted")
        device.publish(Topic(Kind.JOB_STATUS, device.words.address, task=TASK), status)
        update = offer(device, DATA)
        xfer = device.words.xfer(DATA)
        assert central.wait_for(Kind.MANIFEST, xfer=xfer)[0] == update
        assert statuses(device, DATA, 1) == ["accepted"]
    assert gateway.stop() == 0
    farewell = decode_frame(central.wait_for(Kind.STATE, 2)[-1]).body(GatewayState)
    while farewell.status == "online":
        count = len(central.wait_for(Kind.STATE)) + 1
        farewell = decode_frame(central.wait_for(Kind.STATE, count)[-1]).body(GatewayState)
    assert (farewell.status, farewell.why) == ("offline", "stopped")


def test_updates_held_while_central_is_away_survive_kills_of_everything(world, brokers):
    central, (device, _), gateway = world
    central.is_deaf = True
    updates = [bytes([i]) * 1000 for i in range(20)]
    for number, data in enumerate(updates):
        offer(device, data, number)
        assert statuses(device, data, 1, number) == ["held"]
    gateway.kill()
    brokers[0].kill()
    gateway.start()
    time.sleep(0.5)
    gateway.kill()
    brokers[0].start()
    central.is_deaf = False
    gateway.start()
    for number, data in enumerate(updates):
        assert statuses(device, data, 2, number)[-1] in {"accepted", "duplicate"}
    assert set(central.accepted) == {device.words.xfer(d, n) for n, d in enumerate(updates)}


def big_file(path, seed):
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES // MIB):
            file.write(rng.bytes(MIB))
    return path


def upload(device, path, described, digests):
    """Offer a file; return its transfer id."""
    xfer = transfer_id(device.words.name, TASK, 0, described.sha256)
    frame = decode_frame(device.words.manifest(DATA))
    body = frame.body(UpdateManifest).model_copy(update={"object": described, "xfer": xfer})
    device.objects[xfer] = (path, described.chunk_bytes)
    topic = Topic(Kind.MANIFEST, device.words.address, xfer=xfer)
    device.publish(topic, encode_frame(frame.header, body, digests))
    return xfer


def test_forty_megabytes_down_and_up_take_a_fraction_of_that_in_memory(world, tmp_path):
    central, devices, gateway = world
    time.sleep(0.5)
    before = gateway.memory_bytes("VmRSS")
    model, tail = describe(big_file(tmp_path / "model", 1), DEFAULT_CHUNK_BYTES)
    central.models[model.sha256] = (tmp_path / "model", DEFAULT_CHUNK_BYTES)
    frame = decode_frame(central.words.assignment(("a", "b")))
    body = frame.body(Assignment).model_copy(update={"model": model})
    central.publish(Topic(Kind.TASK, GATEWAY), encode_frame(frame.header, body, tail))
    until_s = time.monotonic() + 60
    while any(len(d.blocks) < model.chunks for d in devices) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert [d.blocks for d in devices] == [dict.fromkeys(range(model.chunks), 1)] * 2
    assert central.blocks_given == model.chunks
    for device in devices:
        path = big_file(tmp_path / device.words.name, 2)  # identical updates
        described, digests = describe(path, DEFAULT_CHUNK_BYTES)
        xfer = upload(device, path, described, digests)
        found = device.wait_for(Kind.RECEIPT, 2, xfer=xfer)
        assert decode_frame(found[-1]).body(Receipt).status == "accepted"
    assert not list((tmp_path / "gw" / "custody" / "objects").iterdir())
    growth = gateway.memory_bytes("VmHWM") - before
    assert growth < LARGE_BYTES // 2, f"{growth / MIB:.1f} MiB"
