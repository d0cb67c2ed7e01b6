"""How much memory a device agent takes, and that it needs no training library."""

import hashlib
import signal

import numpy as np
import pytest
from device_agent_process import (
    WITHOUT_TORCH,
    DeviceProcess,
    PlayedGateway,
    broker,
    write_model,
)

from schemas.limits import MIB
from updates.codecs.registry import create
from updates.layout import Layout

IDLE_LIMIT_BYTES = 80 * MIB
#: 40 MB of parameters.
LARGE = Layout.of({"w": (10_000_000,)})
SMALL = Layout.of({"w": (1000,)})
GROWTH_LIMIT = 4


@pytest.fixture
def url():
    with broker() as address:
        yield address


def test_an_idle_agent_is_small_and_has_loaded_no_training_library(url, tmp_path):
    with PlayedGateway(url) as gateway, DeviceProcess(url, tmp_path / "d") as device:
        birth = gateway.wait_for_state("online")
        assert birth.capabilities.backends == ("onnx", "torch")
        assert birth.capabilities.providers == ("cpu",)
        assert device.memory_bytes("VmRSS") < IDLE_LIMIT_BYTES
        assert "torch" not in device.maps()
        assert "onnxruntime" not in device.maps()
        assert device.stop() == 0
        farewell = gateway.wait_for_state("offline")
        assert (farewell.boot, farewell.why) == (birth.boot, "stopped")


def test_without_torch_and_without_a_graph_the_agent_drills_but_refuses_to_train(url, tmp_path):
    model = write_model(tmp_path / "model", SMALL)
    with (
        PlayedGateway(url) as gateway,
        DeviceProcess(url, tmp_path / "d", WITHOUT_TORCH) as device,
    ):
        assert gateway.wait_for_state("online").capabilities.backends == ("onnx",)
        gateway.assign(model, SMALL, "int8", number=1, epochs=1)
        assert gateway.wait_for_status("rejected").code == "model"
        gateway.assign(model, SMALL, "int8", number=2, epochs=0)
        manifest, payload = gateway.wait_for_update()
        assert not np.any(create("int8").decode(payload, SMALL))
        gateway.receipt(manifest, "accepted")
        gateway.wait_for_status("done")
        assert device.stop() == 0


@pytest.mark.parametrize("codec", ["int8", "raw-f32"])
def test_a_drill_of_a_large_model_grows_the_agent_by_less_than_four_models(url, tmp_path, codec):
    model = write_model(tmp_path / "model", LARGE)
    with PlayedGateway(url) as gateway, DeviceProcess(url, tmp_path / "d") as device:
        gateway.wait_for_state("online")
        before = device.memory_bytes("VmRSS")
        gateway.assign(model, LARGE, codec, epochs=0)
        manifest, payload = gateway.wait_for_update()
        grown = device.memory_bytes("VmHWM") - before
        assert hashlib.sha256(payload).hexdigest() == manifest.object.sha256
        assert grown < GROWTH_LIMIT * 4 * LARGE.size, f"{grown / MIB:.0f} MiB"
        gateway.receipt(manifest, "accepted")
        gateway.wait_for_status("done")
        assert device.child.poll() is None
        device.child.send_signal(signal.SIGINT)
        assert device.child.wait(10) == 0
