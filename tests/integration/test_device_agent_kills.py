"""A device process that is killed at any moment still sends the same update, once."""

import hashlib
import signal

import pytest
from device_agent_process import DeviceProcess, PlayedGateway, broker, write_model

from schemas.topics import Kind
from updates.layout import Layout

#: lenet5-sized pieces would hide nothing: what matters is inline against chunked.
INLINE = Layout.of({"w": (1000,)})
CHUNKED = Layout.of({"w": (200_000,)})


@pytest.fixture
def url():
    with broker() as address:
        yield address


@pytest.fixture(params=[INLINE, CHUNKED], ids=["inline", "chunked"])
def layout(request):
    return request.param


def test_a_device_killed_after_each_word_sends_the_same_update(url, tmp_path, layout):
    model = write_model(tmp_path / "model", layout)
    with PlayedGateway(url) as gateway, DeviceProcess(url, tmp_path / "d") as device:
        gateway.wait_for_state("online")
        gateway.assign(model, layout, "raw-f32", epochs=0)
        gateway.wait_for_word("downloading", "training")
        device.kill()
        device.start()
        gateway.wait_for_word("training", "uploading")
        device.kill()
        device.start()
        first, _ = gateway.wait_for_manifest()
        device.kill()
        device.start()
        manifest, payload = gateway.wait_for_update()
        assert manifest.xfer == first.xfer
        assert hashlib.sha256(payload).hexdigest() == manifest.object.sha256
        gateway.receipt(manifest, "accepted")
        gateway.wait_for_status("done")
        device.kill()
        device.start()
        gateway.wait_for_state("online")
        gateway.assign(model, layout, "raw-f32", epochs=0)
        gateway.wait_for_status("done")
        assert device.stop() == 0
    offers = {topic.xfer for topic, _ in gateway.seen if topic.kind is Kind.MANIFEST}
    assert offers == {manifest.xfer}


def test_a_device_killed_while_it_downloads_goes_on_with_what_it_has(url, tmp_path):
    model = write_model(tmp_path / "model", CHUNKED)
    with PlayedGateway(url) as gateway, DeviceProcess(url, tmp_path / "d") as device:
        gateway.wait_for_state("online")
        gateway.assign(model, CHUNKED, "int8", epochs=0)
        gateway.wait_for_status("downloading")
        device.kill()
        device.start()
        manifest, _ = gateway.wait_for_update()
        gateway.receipt(manifest, "accepted")
        gateway.wait_for_status("done")
        assert device.stop() == 0


def test_sigint_ends_the_program_as_sigterm_does(url, tmp_path):
    with PlayedGateway(url) as gateway, DeviceProcess(url, tmp_path / "d") as device:
        gateway.wait_for_state("online")
        device.child.send_signal(signal.SIGINT)
        assert device.child.wait(10) == 0
        assert gateway.wait_for_state("offline").why == "stopped"
