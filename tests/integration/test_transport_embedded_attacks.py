"""What a hostile or careless client cannot do to the embedded broker and its other clients."""

import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from schemas.limits import KIB, MAX_PACKET_BYTES, MIB
from tests.support.brokers_raw import (
    CONNACK,
    PUBACK,
    PUBCOMP,
    PUBREC,
    RawClient,
    connect_packet,
    packet,
    publish_packet,
    text,
)
from tests.support.brokers_thread import running
from transport import embedded_broker, embedded_client

Clients = Callable[[], RawClient]


@contextmanager
def connecting(port: int) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(RawClient(port))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running() as listening:
        yield listening


@pytest.fixture
def new(port: int) -> Iterator[Clients]:
    with connecting(port) as clients:
        yield clients


@pytest.fixture
def guarded() -> Iterator[Clients]:
    """Clients of a broker that asks for passwords."""
    with running({"ada": "right", "eve": "also right"}) as port, connecting(port) as clients:
        yield clients


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A client id and topic prefix of this test's own."""
    return str(request.node.name)


def test_a_wrong_password_is_refused(guarded: Clients, name: str) -> None:
    client = guarded()

    assert client.connect(name, login=("ada", "wrong")) == b"\0\5"

    client.expect_closed()
    assert guarded().connect(name, login=("nobody", "")) == b"\0\5"
    assert guarded().connect(name) == b"\0\5"


@pytest.mark.parametrize("clean", [False, True])
def test_a_refused_connect_leaves_the_live_session_of_that_id_alone(
    guarded: Clients, name: str, clean: bool
) -> None:
    live = guarded()
    assert live.connect(name, login=("ada", "right")) == b"\0\0"
    live.subscribe(f"{name}/#")

    assert guarded().connect(name, login=("ada", "wrong"), clean=clean) == b"\0\5"
    assert guarded().connect(name, clean=clean) == b"\0\5"

    sender = guarded()
    sender.connect("sender", login=("ada", "right"))
    sender.publish(f"{name}/x", b"still here")
    assert live.message().payload == b"still here"


def test_a_refused_connect_leaves_the_stored_session_of_that_id_alone(
    guarded: Clients, name: str
) -> None:
    away = guarded()
    away.connect(name, login=("ada", "right"))
    away.subscribe(f"{name}/#")
    away.disconnect()
    sender = guarded()
    sender.connect("sender", login=("ada", "right"))
    sender.publish(f"{name}/x", b"kept")

    assert guarded().connect(name, login=("ada", "wrong"), clean=True) == b"\0\5"

    back = guarded()
    assert back.connect(name, login=("ada", "right")) == b"\1\0"
    assert back.message().payload == b"kept"


def test_another_user_cannot_take_a_client_s_session(guarded: Clients, name: str) -> None:
    live = guarded()
    live.connect(name, login=("ada", "right"))

    assert guarded().connect(name, login=("eve", "also right")) == b"\0\5"

    live.send(b"\xc0\0")
    assert live.receive() == (0xD0, b"")


def test_retained_messages_do_not_reach_who_did_not_subscribe_to_them(
    new: Clients, name: str
) -> None:
    sender, watcher = new(), new()
    sender.connect(f"{name}-sender")
    watcher.connect(f"{name}-watcher")
    watcher.subscribe(f"{name}/secret")
    sender.publish(f"{name}/secret", b"secret", retain=True)
    assert watcher.message().payload == b"secret"

    stranger = new()
    stranger.connect(name)
    stranger.expect_silence()
    stranger.subscribe(f"{name}/open")
    stranger.expect_silence()
    stranger.disconnect()

    again = new()
    assert again.connect(name) == b"\1\0"
    again.expect_silence()


def test_an_oversize_packet_closes_the_connection_before_its_body_is_read(
    new: Clients, name: str
) -> None:
    client = new()
    client.connect(name)

    client.send(b"\x30\xff\xff\xff\x7f")

    client.expect_closed(within_s=2.0)


def test_the_packet_limit_is_exact(new: Clients, name: str) -> None:
    client = new()
    client.connect(name)
    topic = f"{name}/x"
    fits = MAX_PACKET_BYTES - 4 - len(text(topic)) - 2
    assert len(publish_packet(topic, bytes(fits))) == MAX_PACKET_BYTES

    client.publish(topic, bytes(fits))
    client.send(publish_packet(topic, bytes(fits + 1)))

    client.expect_closed()


def test_an_oversize_connect_is_not_read(new: Clients) -> None:
    client = new()

    client.send(b"\x10\xff\xff\xff\x7f")

    client.expect_closed(within_s=2.0)


def test_who_never_says_connect_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded_broker.CONNECT_TIMEOUT_S == 10.0
    monkeypatch.setattr(embedded_broker, "CONNECT_TIMEOUT_S", 0.3)
    with running() as port, connecting(port) as new:
        silent, slow = new(), new()
        slow.send(connect_packet("slow")[:-2])
        began = time.monotonic()

        silent.expect_closed()
        slow.expect_closed()

        assert 0.2 < time.monotonic() - began < 2.0


def test_a_silent_client_is_cut_off_and_its_will_published(new: Clients, name: str) -> None:
    watcher = new()
    watcher.connect(f"{name}-watcher")
    watcher.subscribe(f"{name}/will")
    silent = new()
    began = time.monotonic()
    silent.connect(name, keepalive_s=1, will=(f"{name}/will", b"gone"))

    assert watcher.message().payload == b"gone"

    assert 1.4 < time.monotonic() - began < 2.5
    silent.expect_closed()


def test_pings_keep_a_client_connected(new: Clients, name: str) -> None:
    client = new()
    client.connect(name, keepalive_s=1)

    for _ in range(4):
        time.sleep(0.6)
        client.send(b"\xc0\0")
        assert client.receive() == (0xD0, b"")


def test_a_connect_of_mqtt_5_is_answered_with_a_refusal(new: Clients, name: str) -> None:
    client = new()

    client.send(connect_packet(name, level=5))

    assert client.expect(CONNACK) == b"\x00\x84\x00"
    client.expect_closed()


def test_a_connect_of_an_unknown_version_is_answered_with_a_refusal(
    new: Clients, name: str
) -> None:
    client = new()

    client.send(connect_packet(name, level=9))

    assert client.expect(CONNACK) == b"\0\1"


def test_shared_and_malformed_filters_are_refused_and_others_granted(
    new: Clients, name: str
) -> None:
    client = new()
    client.connect(name)

    codes = client.subscribe(f"$share/group/{name}/#", f"{name}/x", f"{name}/#/y", f"{name}/a+")

    assert codes == b"\x80\x01\x80\x80"


@pytest.mark.parametrize("topic", ["a/+/b", "a/#", "", "a\0b"])
def test_a_malformed_topic_name_ends_the_connection_and_the_will_speaks(
    new: Clients, name: str, topic: str
) -> None:
    watcher = new()
    watcher.connect(f"{name}-watcher", clean=True)
    watcher.subscribe("malformed/will")
    culprit = new()
    culprit.connect(name, clean=True, will=("malformed/will", b"gone"))

    culprit.send(publish_packet(topic, b"x"))

    culprit.expect_closed()
    assert watcher.message().payload == b"gone"


def test_nothing_is_published_under_a_dollar(new: Clients, name: str) -> None:
    client = new()
    client.connect(name)
    client.subscribe("$SYS/#", f"+/{name}")

    client.publish(f"$SYS/{name}", b"forged")

    client.expect_silence()


@pytest.mark.parametrize("topic", ["$SYS/x", "a/#", ""])
def test_a_will_on_a_forbidden_topic_is_refused(new: Clients, name: str, topic: str) -> None:
    client = new()

    client.send(connect_packet(name, will=(topic, b"gone")))

    client.expect_closed()


def test_a_packet_before_connect_and_a_second_connect_end_the_connection(
    new: Clients, name: str
) -> None:
    early, twice = new(), new()

    early.send(publish_packet("x", b"x"))
    early.expect_closed()
    twice.connect(name)
    twice.send(connect_packet(name))
    twice.expect_closed()


def test_who_reads_nothing_holds_nobody_up_and_is_bounded(new: Clients, name: str) -> None:
    deaf, receiver, sender = new(), new(), new()
    for client, role in ((deaf, "deaf"), (receiver, "receiver"), (sender, "sender")):
        client.connect(f"{name}-{role}")
    deaf.subscribe(f"{name}/#", qos=0)
    receiver.subscribe(f"{name}/#")
    payload = bytes(MIB // 4)

    for number in range(300):
        sender.publish(f"{name}/x", payload + struct.pack("!H", number))
        arrived = receiver.message()
        receiver.acknowledge(arrived)
        assert arrived.payload[-2:] == struct.pack("!H", number)


def test_who_never_fetches_its_answers_is_cut_off(
    port: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embedded_client._MAX_UNREAD_BYTES == 4 * MIB
    monkeypatch.setattr(embedded_client, "_MAX_UNREAD_BYTES", 4 * KIB)
    begin = embedded_client.ClientConnection.run

    def run_with_small_buffer(self: embedded_client.ClientConnection) -> Awaitable[bool]:
        served = self._writer.get_extra_info("socket")
        served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return begin(self)

    monkeypatch.setattr(embedded_client.ClientConnection, "run", run_with_small_buffer)
    with RawClient(port, receive_buffer=4096) as client:
        client.connect(name)

        with pytest.raises(ConnectionError):
            _flood(client, b"\xc0\0" * 1000)


def _flood(client: RawClient, data: bytes) -> None:
    """Send without ever reading, until the broker ends it; 10 s at most."""
    for _ in range(1000):
        client.send(data)
        time.sleep(0.01)


def test_random_bytes_do_not_hurt_the_broker(new: Clients, name: str) -> None:
    rng = random.Random(1)
    for number in range(150):
        client = new()
        if number % 3:
            client.connect(f"fuzz-{number}", clean=True)
        kind = rng.randrange(16) << 4 | rng.choice([0, 2, rng.randrange(16)])
        with_length = packet(kind, rng.randbytes(rng.randrange(40)))
        client.send(with_length if number % 2 else rng.randbytes(60))
        client.socket.close()

    witness = new()
    assert witness.connect(name, clean=True) == b"\0\0"
    witness.subscribe(f"{name}/x")
    witness.send(publish_packet(f"{name}/x", b"alive", qos=0))
    assert witness.message().payload == b"alive"


def test_qos_2_is_taken_once_and_its_unreleased_messages_are_bounded(
    new: Clients, name: str
) -> None:
    receiver, sender = new(), new()
    receiver.connect(f"{name}-receiver")
    receiver.subscribe(f"{name}/x", qos=2)
    sender.connect(name)

    for _ in range(2):
        sender.send(publish_packet(f"{name}/x", b"once", qos=2, packet_id=7))
        assert sender.expect(PUBREC) == b"\0\7"
    for _ in range(2):
        sender.send(packet(0x62, b"\0\7"))
        assert sender.expect(PUBCOMP) == b"\0\7"
    arrived = receiver.message()
    assert (arrived.payload, arrived.qos) == (b"once", 1)
    receiver.expect_silence()

    for packet_id in range(1, 22):
        sender.send(publish_packet(f"{name}/x", b"many", qos=2, packet_id=packet_id))
    for _ in range(20):
        sender.expect(PUBREC)
    sender.expect_closed()


def test_puback_is_sent_for_what_nobody_receives(new: Clients, name: str) -> None:
    client = new()
    client.connect(name)

    client.send(publish_packet(f"{name}/nobody", b"x", packet_id=9))

    assert client.expect(PUBACK) == b"\0\x09"
