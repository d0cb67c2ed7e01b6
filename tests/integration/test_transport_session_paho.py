"""How a paho session meets brokers that are away, old, strict, silent or broken."""

import time
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
from tests.support.brokers_thread import running
from tests.support.certificates import make_certificates
from tests.support.paho_sessions import (
    GRANTED,
    REFUSED,
    STATE,
    FakeBroker,
    Sessions,
    block,
    expect,
    wait_until,
)
from transport import connection, subscribing
from transport.events import Connected, Disconnected, MessageArrived, Outgoing, Published


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


def test_a_login_in_the_url_is_used(sessions: Sessions) -> None:
    with running({"ada": "p@ss"}) as port:
        _, wrong = sessions.start(f"mqtt://ada:no@{HOST}:{port}", mqtt_client_id="wrong")
        _, right = sessions.start(f"mqtt://ada:p%40ss@{HOST}:{port}")

        expect(right, Connected)
        time.sleep(0.1)
        assert wrong.empty()


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
