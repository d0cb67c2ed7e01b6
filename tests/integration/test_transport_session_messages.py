"""What a paho session sends and receives, once or again, refused, large or from many threads."""

import statistics
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.limits import KIB
from schemas.topics import Kind, Topic, device_filters
from tests.support.brokers import (
    ProcessBroker,
    mosquitto_broker,
)
from tests.support.paho_sessions import (
    DEVICE,
    STATE,
    FakeBroker,
    Sessions,
    block,
    expect,
    wait_until,
)
from transport import paho_client
from transport.events import Connected, Disconnected, MessageArrived, Outgoing, Published


def test_what_was_not_acknowledged_is_sent_again_after_a_reconnect(
    fake: FakeBroker, fake_url: str, sessions: Sessions
) -> None:
    fake.closes_on_publish = True
    session, events = sessions.start(fake_url)
    expect(events, Connected)
    session.publish(Outgoing(STATE, b"state", token=7))
    expect(events, Disconnected)

    fake.closes_on_publish = False

    while not isinstance(event := events.get(timeout=5.0), Published):
        pass
    assert event == Published("main", 7)
    wait_until(lambda: session._outgoing.used_bytes == 0)


def test_a_message_that_ends_every_connection_is_given_up(
    fake: FakeBroker, fake_url: str, sessions: Sessions
) -> None:
    fake.closes_on_publish = True
    session, _ = sessions.start(fake_url)
    wait_until(lambda: session.is_connected)
    session.publish(Outgoing(STATE, b"poison"))

    wait_until(lambda: len(fake.levels) >= 3 and session.is_connected)
    time.sleep(0.2)

    assert fake.publishes() == 2
    assert session.is_connected
    assert session._outgoing.used_bytes == 0


def test_at_most_20_messages_are_out_and_the_budget_holds_the_rest(
    fake: FakeBroker, fake_url: str, sessions: Sessions
) -> None:
    fake.acknowledges = False
    session, events = sessions.start(fake_url, budget_bytes=100 * KIB)
    expect(events, Connected)

    taken = sum(session.publish(Outgoing(block(k), bytes(KIB))) for k in range(200))

    wait_until(lambda: fake.publishes() >= 20)
    time.sleep(0.1)
    assert fake.publishes() == 20
    assert 90 <= taken < 100
    assert session._outgoing.used_bytes <= 100 * KIB


def test_what_the_broker_would_refuse_is_dropped_and_logged(sessions: Sessions) -> None:
    with mosquitto_broker(extra="max_packet_size 20000\n") as broker:
        session, events = sessions.start(broker.url, protocol="5")
        expect(events, Connected)
        with structlog.testing.capture_logs() as logs:
            session.publish(Outgoing(STATE, bytes(20_000), token=1))
            session.publish(Outgoing(STATE, bytes(19_000), token=2))

            assert expect(events, Published).token == 2

    assert [log["event"] for log in logs] == ["message_over_broker_limit"]
    assert session._outgoing.used_bytes == 0


def test_a_refused_message_of_version_5_is_logged_once(sessions: Sessions, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic write {block(1).name}\n")
    acl.chmod(0o600)
    with mosquitto_broker(extra=f"acl_file {acl}\nuser root\n") as broker:
        session, events = sessions.start(broker.url, protocol="5")
        expect(events, Connected)
        with structlog.testing.capture_logs() as logs:
            for k in range(3):
                session.publish(Outgoing(block(k), b"x", token=k))
            assert [expect(events, Published).token for _ in range(3)] == [0, 1, 2]

    assert [(log["event"], log["reason"]) for log in logs] == [
        ("message_refused", "Not authorized")
    ]


def test_version_5_keeps_a_message_no_longer_than_its_rule_says(
    mosquitto: ProcessBroker, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Topic(Kind.NEED, DEVICE, xfer="0" * 32)
    away, events = sessions.start(
        mosquitto.url, filters=(short.name,), protocol="5", mqtt_client_id="away"
    )
    expect(events, Connected)
    away.stop()
    expiries: list[int] = []
    expiring = paho_client._expiring

    def one_second(packet_type: int, expiry_s: int) -> Any:
        expiries.append(expiry_s)
        return expiring(packet_type, 1)

    monkeypatch.setattr(paho_client, "_expiring", one_second)
    sender, told = sessions.start(mosquitto.url, protocol="5")
    expect(told, Connected)
    sender.publish(Outgoing(short, b"stale", token=1))
    expect(told, Published)
    time.sleep(2.1)
    sender.publish(Outgoing(short, b"fresh", token=2))
    expect(told, Published)

    _, again = sessions.start(
        mosquitto.url, filters=(short.name,), protocol="5", mqtt_client_id="away"
    )
    found = [again.get(timeout=5.0) for _ in range(2)]

    arrived = [event.payload for event in found if isinstance(event, MessageArrived)]
    assert arrived == [b"fresh"]
    assert expiries == [60, 60]


def test_a_quarter_megabyte_takes_milliseconds(
    mosquitto: ProcessBroker, sessions: Sessions
) -> None:
    sender, told = sessions.start(mosquitto.url)
    _, events = sessions.start(mosquitto.url, filters=device_filters("eu", "d1"))
    expect(told, Connected)
    expect(events, Connected)
    taken_s = []
    for k in range(50):
        began = time.perf_counter()
        assert sender.publish(Outgoing(block(k), bytes(250_000)))
        expect(events, MessageArrived).ack()
        taken_s.append(time.perf_counter() - began)

    assert statistics.median(taken_s) < 0.02


def test_many_threads_may_publish_and_acknowledge(
    mosquitto: ProcessBroker, sessions: Sessions
) -> None:
    sender, told = sessions.start(mosquitto.url)
    _, events = sessions.start(mosquitto.url, filters=device_filters("eu", "d1"))
    expect(told, Connected)
    expect(events, Connected)

    def publish(start: int) -> None:
        for k in range(start, start + 100):
            while not sender.publish(Outgoing(block(k), b"x")):
                time.sleep(0.001)

    threads = [threading.Thread(target=publish, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    found = []
    for _ in range(400):
        arrived = expect(events, MessageArrived)
        found.append(int(arrived.topic_name.rsplit("/", 1)[1]))
        acknowledging = threading.Thread(target=arrived.ack)
        acknowledging.start()
        acknowledging.join()
    for thread in threads:
        thread.join()

    assert sorted(found) == list(range(400))
