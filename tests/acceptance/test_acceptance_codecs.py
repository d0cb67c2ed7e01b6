"""Small updates through the whole system: as accurate as float32, with the bytes that are told."""

import pytest

from fedfleet.testbed.choices import Options
from tests.support.measured_fleet import run_measured

ROUNDS = 10
#: Of accuracy, a share: one point.
POINT = 0.01
#: Of the bytes that went through the devices' sockets.
TOLERANCE = 0.03


def trained(folder, codec):
    """Return the demo's task with a codec, measured before its devices."""
    return run_measured(Options(devices=8, rounds=ROUNDS, codec=codec), folder)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("raw-f32"), "raw-f32").status


@pytest.mark.parametrize(
    ("codec", "least_ratio"), [("stc", 150.0), ("ecsq", 30.0), ("laq", 8.0), ("bin", 31.0)]
)
def test_a_codec_ends_within_a_point_of_float32_and_its_bytes_are_told(
    tmp_path, raw, codec, least_ratio
):
    measured = trained(tmp_path, codec)
    status = measured.status
    assert status.metrics["accuracy"] >= raw.metrics["accuracy"] - POINT
    assert status.uplink_ratio >= least_ratio
    assert status.uplink_wire_bytes == pytest.approx(measured.up_bytes, rel=TOLERANCE)
    assert status.downlink_wire_bytes == pytest.approx(measured.down_bytes, rel=TOLERANCE)
    print(  # noqa: T201 - seen with -s
        f"\n{codec}: accuracy {status.metrics['accuracy']:.4f} beside {raw.metrics['accuracy']:.4f}, "
        f"{status.uplink_ratio:.1f} x fewer bytes up, {status.uplink_wire_ratio:.1f} x on the wire; "
        f"told {status.uplink_wire_bytes} / {status.downlink_wire_bytes}, "
        f"measured {measured.up_bytes} / {measured.down_bytes}"
    )
