"""A session's count of its bytes against what a proxy before the broker saw."""

import queue
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from fedfleet.chaos.proxy import Proxy
from schemas.limits import KIB
from schemas.topics import Address, Kind, Topic, device_filters
from tests.support.brokers import HOST, embedded_broker, mosquitto_broker
from tests.support.certificates import make_certificates
from transport.events import Connected, MessageArrived, Outgoing
from transport.session import PahoSession
from transport.traffic import TLS_RECORD_BYTES, Traffic, publish_bytes, record_overhead_bytes

DEVICE = Address("eu", "d1")
WAIT_S = 20.0


def block(k):
    return Topic(Kind.BLOCK, DEVICE, sha16="0" * 16, k=k)


@contextmanager
def connected(broker, proxy, scheme="mqtt", **options):
    events = queue.SimpleQueue()
    session = PahoSession(
        f"{scheme}://{HOST}:{proxy.ports['door']}",
        name="main",
        mqtt_client_id="counted",
        filters=device_filters("eu", "d1"),
        events=events,
        **options,
    )
    session.start()
    assert isinstance(events.get(timeout=WAIT_S), Connected)
    yield session, events
    session.stop()


def echo(session, events, sizes):
    """Publish to what the session itself subscribes to, and take it back."""
    for k, size in enumerate(sizes):
        assert session.publish(Outgoing(block(k), bytes(size)))
    for _ in sizes:
        arrived = events.get(timeout=WAIT_S)
        assert isinstance(arrived, MessageArrived)
        arrived.ack()


def seen(proxy):
    """Return what went through the door, once nothing moves any more."""
    looks = [proxy.moved("door"), {}]
    while looks[-1] != looks[-2]:
        time.sleep(0.3)
        looks.append(proxy.moved("door"))
    return Traffic(looks[-1]["up"], looks[-1]["down"])


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_every_byte_of_a_session_is_counted_over_all_its_connections(protocol):
    choose = mosquitto_broker if protocol == "5" else embedded_broker
    with choose() as broker, Proxy(["door"], broker.port) as proxy:
        with connected(broker, proxy, protocol=protocol, reconnect_s=(0.05, 0.1)) as (one, events):
            echo(one, events, (1, 500, 100 * KIB))
            assert seen(proxy) == one.traffic
            proxy.tell("door", lambda door: door.drop())
            while not isinstance(events.get(timeout=WAIT_S), Connected):
                pass
            echo(one, events, (20,))
            assert seen(proxy) == one.traffic
        assert seen(proxy).sent_bytes == one.traffic.sent_bytes


def test_a_publish_packet_has_the_size_that_is_computed_for_it():
    with embedded_broker() as broker, Proxy(["door"], broker.port) as proxy:
        with connected(broker, proxy, protocol="3.1.1") as (session, events):
            sizes = (1, 90, 91, 92, 93, 127, 128, 16_000, 16_384, 100_000)
            told = [session.traffic]
            for size in sizes:
                echo(session, events, (size,))
                seen(proxy)
                told.append(session.traffic)
        puback = 4
        for size, (before, after) in zip(sizes, pairwise(told), strict=True):
            packet = publish_bytes(block(0).name, size)
            assert after.since(before) == Traffic(packet + puback, packet + puback)


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_what_tls_adds_is_computed_to_the_byte_after_the_handshake(tmp_path, version):
    make_certificates(tmp_path)
    extra = (
        f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\n"
        f"keyfile {tmp_path}/server.key\ntls_version {version}\nuser root\n"
    )
    with mosquitto_broker(extra=extra) as broker, Proxy(["door"], broker.port) as proxy:
        options = {"ca_file": tmp_path / "ca.pem", "protocol": "5"}
        with connected(broker, proxy, "mqtts", **options) as (session, events):
            before, begun = seen(proxy), session.traffic
            echo(session, events, (1, 500, 15_000, 16_384, 16_385, 900 * KIB))
            measured, counted = seen(proxy).since(before), session.traffic.since(begun)
    assert counted == measured
    handshake = before.since(begun)
    assert 0 < handshake.sent_bytes < 10 * KIB


def test_a_record_costs_what_its_version_of_tls_adds():
    assert record_overhead_bytes(None) == 0
    assert record_overhead_bytes("TLSv1.2") == 29
    assert record_overhead_bytes("TLSv1.3") == 22
    assert TLS_RECORD_BYTES == 16384
