"""Which bytes a device counts for its jobs, and when it begins anew."""

from device_agent_bench import offered

from device_agent.service.traffic import WorkTraffic
from schemas.messages import ControlNote
from schemas.topics import Kind
from transport.traffic import Traffic


class Meter:
    def __init__(self):
        self.now = Traffic()

    def move(self, sent, received=0):
        self.now = Traffic(self.now.sent_bytes + sent, self.now.received_bytes + received)


def test_a_session_that_counts_nothing_tells_nothing():
    traffic = WorkTraffic()
    traffic.heartbeat(is_idle=True)
    traffic.new_boot()
    assert traffic.told() is None


def test_idle_heartbeats_belong_to_no_job():
    meter = Meter()
    traffic = WorkTraffic(lambda: meter.now)
    meter.move(1000, 5000)
    assert traffic.told() == (1000, 5000)
    traffic.heartbeat(is_idle=True)
    for _ in range(100):
        meter.move(300, 20)
        traffic.heartbeat(is_idle=True)
    assert traffic.told() == (1000, 5000)


def test_an_assignment_that_comes_between_two_heartbeats_is_counted():
    meter = Meter()
    traffic = WorkTraffic(lambda: meter.now)
    traffic.heartbeat(is_idle=True)
    meter.move(0, 60_000)
    traffic.busy()
    meter.move(400, 0)
    traffic.heartbeat(is_idle=False)
    meter.move(500, 300)
    traffic.heartbeat(is_idle=True)
    meter.move(300, 20)
    traffic.heartbeat(is_idle=True)
    assert traffic.told() == (900, 60_300)


def test_a_new_boot_counts_from_zero():
    meter = Meter()
    traffic = WorkTraffic(lambda: meter.now)
    meter.move(1000, 5000)
    traffic.new_boot()
    meter.move(7, 8)
    assert traffic.told() == (7, 8)


def test_a_manifest_tells_what_its_device_counted_in_its_boot(bench):
    meter = Meter()
    traffic = WorkTraffic(lambda: meter.now)
    bench.agent._parts.uploads._traffic = traffic
    meter.move(1234, 56_789)
    bench.assign()
    manifest, _ = offered(bench.train())
    assert manifest.wire_bytes == (1234, 56_789)


def test_a_boot_that_is_adopted_begins_the_count_anew(bench):
    meter = Meter()
    bench.agent._parts.traffic._read = lambda: meter.now
    meter.move(1000, 5000)
    bench.send(Kind.CONTROL, ControlNote(action="rebirth"))
    assert bench.agent._parts.traffic.told() == (1000, 5000)
    bench.send(Kind.CONTROL, ControlNote(action="rebirth", boot=2_000_000))
    assert bench.agent._parts.traffic.told() == (0, 0)
