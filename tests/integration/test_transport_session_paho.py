"""How a paho session meets brokers that are away, old, strict, silent or broken."""

import queue
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.limits import KIB
from schemas.topics import Address, Kind, Topic, device_filters
from tests.support.brokers import (
    HOST,
    ProcessBroker,
    embedded_broker,
    free_port,
    mosquitto_broker,
)
from tests.support.brokers_raw import CONNACK, RawClient, packet, serving
from tests.support.brokers_thread import running
from tests.support.certificates import make_certificates
from transport import connection, paho_client, subscribing
from transport.events import Connected, Disconnected, MessageArrived, Outgoing, Published
from transport.session import PahoSession

DEVICE = Address("eu", "d1")
STATE = Topic(Kind.STATE, DEVICE)
ACCEPT = packet(CONNACK << 4, b"\0\0")
GRANTED, REFUSED = b"\1", b"\x80"

Events = queue.SimpleQueue[Any]


def block(k: int = 0) -> Topic:
    return Topic(Kind.BLOCK, DEVICE, sha16="0" * 16, k=k)


class Sessions:
    """Makes sessions for one test and stops them after it."""

    def __init__(self) -> None:
        self._made: list[PahoSession] = []

    def start(self, url: str, **options: Any) -> tuple[PahoSession, Events]:
        events: Events = queue.SimpleQueue()
        options = {
            "name": "main",
            "mqtt_client_id": f"client-{len(self._made)}",
            "filters": (),
            "protocol": "3.1.1",
            "reconnect_s": (0.02, 0.1),
            **options,
        }
        session = PahoSession(url, events=events, **options)
        self._made.append(session)
        session.start()
        return session, events

    def close(self) -> None:
        for session in self._made:
            session.stop()


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    made.close()


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[ProcessBroker]:
    with mosquitto_broker() as broker:
        yield broker


def expect(events: Events, kind: type, within_s: float = 10.0) -> Any:
    """Return the next event, which must be of this kind."""
    event = events.get(timeout=within_s)
    assert isinstance(event, kind), event
    return event


class FakeBroker:
    """Answers as told, and keeps what it was sent.

    Attributes:
        levels: Protocol level of every CONNECT.
        packets: First byte and body of every later packet, by connection.
    """

    def __init__(self) -> None:
        self.levels: list[int] = []
        self.packets: list[list[tuple[int, bytes]]] = []
        self.silent_levels: set[int] = set()
        self.suback_codes: list[bytes] = []
        self.acknowledges = True
        self.closes_on_publish = False

    def serve(self, client: RawClient) -> None:
        _, body = client.receive()
        self.levels.append(body[6])
        self.packets.append([])
        if body[6] in self.silent_levels:
            client.receive(30.0)
            return
        client.send(ACCEPT)
        while True:
            first, body = client.receive(30.0)
            self.packets[-1].append((first, body))
            self._answer(client, first, body)

    def _answer(self, client: RawClient, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == 8 and self.suback_codes:
            client.send(packet(0x90, body[:2] + self.suback_codes.pop(0)))
        if kind == 3 and self.closes_on_publish:
            raise EOFError
        if kind == 3 and self.acknowledges:
            length = int.from_bytes(body[:2], "big")
            client.send(packet(0x40, body[2 + length : 4 + length]))

    def publishes(self) -> int:
        return sum(first >> 4 == 3 for packets in self.packets for first, _ in packets)


@pytest.fixture
def fake() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def fake_url(fake: FakeBroker) -> Iterator[str]:
    with serving(fake.serve) as port:
        yield f"mqtt://{HOST}:{port}"


def wait_until(condition: Any, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_first_connection_is_retried_until_the_broker_is_there(sessions: Sessions) -> None:
    port = free_port()
    session, events = sessions.start(f"mqtt://{HOST}:{port}")
    time.sleep(0.2)
    assert session.is_alive
    assert not session.is_connected
    assert events.empty()

    with embedded_broker(port=port):
        assert expect(events, Connected) == Connected("main")


def test_auto_speaks_version_5_where_the_broker_has_it(
    mosquitto: ProcessBroker, sessions: Sessions
) -> None:
    session, events = sessions.start(mosquitto.url, protocol="auto")

    expect(events, Connected)

    assert session._dialect.version == "5"


def test_auto_gives_a_silent_broker_up_and_remembers(
    fake: FakeBroker, fake_url: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connection.ANSWER_TIMEOUT_S == 5.0
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.3)
    fake.silent_levels, fake.closes_on_publish = {5}, True
    session, events = sessions.start(fake_url, protocol="auto")
    began = time.monotonic()
    expect(events, Connected)
    assert 0.2 < time.monotonic() - began < 2.0

    session.publish(Outgoing(STATE, b"x"))
    expect(events, Disconnected)
    expect(events, Connected)

    assert fake.levels[:3] == [5, 4, 4]


def test_a_fixed_protocol_is_never_changed(
    fake: FakeBroker, fake_url: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.1)
    fake.silent_levels = {5}

    _, events = sessions.start(fake_url, protocol="5")

    wait_until(lambda: len(fake.levels) >= 3)
    assert set(fake.levels) == {5}
    assert events.empty()


def test_connected_waits_for_every_filter_and_a_refused_one_is_asked_for_again(
    fake: FakeBroker, fake_url: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribing, "FIRST_RETRY_S", 0.2)
    fake.suback_codes = [GRANTED + REFUSED, GRANTED]
    with structlog.testing.capture_logs() as logs:
        session, events = sessions.start(fake_url, filters=("a/#", "b/#"))
        wait_until(lambda: session.is_connected)
        assert events.empty()

        expect(events, Connected)

    refusals = [log["refused"] for log in logs if log["event"] == "filters_refused"]
    assert refusals == [["b/#: Unspecified error"]]
    asked = [body[2:] for first, body in fake.packets[0] if first >> 4 == 8]
    assert asked == [b"\0\3a/#\1\0\3b/#\1", b"\0\3b/#\1"]


def test_a_broker_that_answers_no_subscribe_is_left_and_tried_again(
    fake: FakeBroker, fake_url: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.2)

    _, events = sessions.start(fake_url, filters=("a/#",))

    assert expect(events, Disconnected).reason == "no SUBACK"
    fake.suback_codes = [GRANTED] * 5
    while not isinstance(events.get(timeout=5.0), Connected):
        pass


def test_a_loss_is_told_once(sessions: Sessions) -> None:
    with mosquitto_broker() as broker:
        _, events = sessions.start(broker.url, filters=("a/#",))
        expect(events, Connected)

        broker.restart()

        expect(events, Disconnected)
        expect(events, Connected)
    expect(events, Disconnected)
    assert events.empty()


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


def test_a_farewell_that_is_not_acknowledged_is_left_to_the_will(
    fake: FakeBroker, fake_url: str, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transport.session._FAREWELL_S", 0.2)
    fake.acknowledges = False
    session, events = sessions.start(fake_url, will=Outgoing(STATE, b"gone"))
    expect(events, Connected)

    session.stop(Outgoing(STATE, b"farewell"))

    assert not session.is_alive
    kinds = [first >> 4 for first, _ in fake.packets[0]]
    assert kinds == [3]


def test_a_polite_stop_says_disconnect(
    fake: FakeBroker, fake_url: str, sessions: Sessions
) -> None:
    session, events = sessions.start(fake_url)
    expect(events, Connected)

    session.stop(Outgoing(STATE, b"farewell"))
    session.stop()

    wait_until(lambda: len(fake.packets[0]) == 2)
    assert [first >> 4 for first, _ in fake.packets[0]] == [3, 14]
    assert events.empty()


def test_stopping_does_not_wait_for_a_broker_that_is_away(sessions: Sessions) -> None:
    session, _ = sessions.start(f"mqtt://{HOST}:{free_port()}", reconnect_s=(60.0, 60.0))
    time.sleep(0.05)
    began = time.monotonic()

    session.stop(Outgoing(STATE, b"farewell"))

    assert time.monotonic() - began < 1.0
    assert not session.is_alive


def test_a_new_will_takes_effect_with_the_next_connection(
    mosquitto: ProcessBroker, sessions: Sessions
) -> None:
    _, watched = sessions.start(mosquitto.url, filters=(STATE.name,))
    expect(watched, Connected)
    session, events = sessions.start(mosquitto.url, will=Outgoing(STATE, b"boot 1"))
    expect(events, Connected)

    session.will = Outgoing(STATE, b"boot 2")
    for boot in (b"boot 1", b"boot 2"):
        assert session._connection is not None
        session._connection.cut()
        expect(events, Disconnected)
        expect(events, Connected)
        arrived = expect(watched, MessageArrived)
        arrived.ack()
        assert arrived.payload == boot


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


def test_a_login_in_the_url_is_used(sessions: Sessions) -> None:
    with running({"ada": "p@ss"}) as port:
        _, wrong = sessions.start(f"mqtt://ada:no@{HOST}:{port}", mqtt_client_id="wrong")
        _, right = sessions.start(f"mqtt://ada:p%40ss@{HOST}:{port}")

        expect(right, Connected)
        time.sleep(0.1)
        assert wrong.empty()


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


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem/.key for 127.0.0.1 and client.pem/.key."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


def test_tls_checks_the_broker_and_shows_the_client_s_certificate(
    certificates: Path, sessions: Sessions
) -> None:
    folder = certificates
    extra = (
        f"cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
        "require_certificate true\nuser root\n"
    )
    files = {"cert_file": folder / "client.pem", "key_file": folder / "client.key"}
    with mosquitto_broker(extra=extra) as broker:
        url = f"mqtts://{HOST}:{broker.port}"
        session, events = sessions.start(
            url,
            ca_file=folder / "ca.pem",
            filters=device_filters("eu", "d1"),
            protocol="5",
            **files,
        )
        _, distrusting = sessions.start(url, mqtt_client_id="distrusting", **files)
        expect(events, Connected)

        session.publish(Outgoing(block(), bytes(900 * KIB)))

        arrived = expect(events, MessageArrived)
        arrived.ack()
        assert len(arrived.payload) == 900 * KIB
        assert distrusting.empty()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize(("is_kept", "waiting"), [(True, [b"while away"]), (False, [])])
def test_the_broker_keeps_only_sessions_that_ask_for_it(
    sessions: Sessions,
    mosquitto: ProcessBroker,
    protocol: str,
    *,
    is_kept: bool,
    waiting: list[bytes],
) -> None:
    options: dict[str, Any] = {
        "mqtt_client_id": f"kept-{protocol}-{is_kept}".replace(".", ""),
        "filters": (f"fl/v1/eu/kept{int(is_kept)}/dn/#",),
        "protocol": protocol,
        "is_kept": is_kept,
    }
    topic = Topic(Kind.CONTROL, Address("eu", f"kept{int(is_kept)}"))
    first, events = sessions.start(mosquitto.url, **options)
    assert isinstance(events.get(timeout=10), Connected)
    first.stop()
    sender, sent = sessions.start(mosquitto.url)
    assert isinstance(sent.get(timeout=10), Connected)
    assert sender.publish(Outgoing(topic, b"while away", token=1))
    assert isinstance(sent.get(timeout=10), Published)
    _, again = sessions.start(mosquitto.url, **options)
    found = []
    while not found or not isinstance(found[-1], Connected):
        found.append(again.get(timeout=10))
    assert sender.publish(Outgoing(topic, b"last", token=2))
    while not any(isinstance(e, MessageArrived) and e.payload == b"last" for e in found):
        found.append(again.get(timeout=10))
    payloads = [event.payload for event in found if isinstance(event, MessageArrived)]
    assert payloads == [*waiting, b"last"]
