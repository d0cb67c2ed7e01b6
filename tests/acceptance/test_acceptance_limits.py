"""What one process may take: an idle device its memory, central the size of a message."""

import pytest

from schemas.ids import derived_task_id
from schemas.limits import MIB
from tests.support.brokers import mosquitto_broker
from tests.support.fleet import SUBMIT, Fleet, Shape, running_fleet

IDLE_LIMIT_BYTES = 80 * MIB
UNLIMITED = "message_size_limit 0\nmax_packet_size 268435455\n"


def test_an_idle_device_takes_less_than_80_mb_and_has_not_loaded_torch(tmp_path):
    shape = Shape(devices=("d1",), regions=("north",))
    with mosquitto_broker() as broker, Fleet(tmp_path, broker, shape) as fleet:
        fleet.start("d1")
        device = fleet.program("d1")
        print(f"\nidle device: {device.rss_bytes() / MIB:.1f} MiB")  # noqa: T201 - seen with -s
        assert device.rss_bytes() < IDLE_LIMIT_BYTES
        assert "torch" not in device.maps()
        assert device.stop() == 0


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_central_outlives_a_message_of_2_mib_where_the_broker_has_no_limit(tmp_path, protocol):
    shape = Shape(devices=(), regions=(), protocol=protocol)
    text = b'{"task":"' + b"x" * 2 * MIB + b'"}'
    with running_fleet(tmp_path, shape, extra=UNLIMITED) as fleet:
        fleet.publish(SUBMIT, text)
        if protocol == "3.1.1":
            task = derived_task_id(text)
            reason = fleet.wait_for(task, lambda status: status["state"] == "rejected")["reason"]
            assert reason == f"message: {len(text)} bytes, at most 65536 are allowed"
        small = fleet.submit({"task": "small", "model": "mlp"})
        fleet.wait_for(small, lambda status: status["state"] == "waiting")
        assert fleet.program("central").is_running
        assert fleet.program("central").log.count("session_connected") == 1
