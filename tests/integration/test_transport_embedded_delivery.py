"""How the embedded broker keeps what it has acknowledged, packet by packet."""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from schemas.limits import KIB
from schemas.topics import Address, Kind, Topic, device_filters
from tests.support.brokers import ProcessBroker, embedded_broker
from tests.support.brokers_raw import RawClient, packet, publish_packet, text
from transport.events import Connected, MessageArrived, Outgoing
from transport.session import PahoSession

Clients = Callable[[], RawClient]


@pytest.fixture(scope="module")
def broker() -> Iterator[ProcessBroker]:
    with embedded_broker() as running:
        yield running


@pytest.fixture
def new(broker: ProcessBroker) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(RawClient(broker.port))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A client id and topic prefix of this test's own."""
    return str(request.node.name)


@pytest.fixture
def sender(new: Clients, name: str) -> RawClient:
    client = new()
    client.connect(f"{name}-sender")
    return client


def subscriber(new: Clients, name: str, qos: int = 1) -> RawClient:
    client = new()
    client.connect(name)
    client.subscribe(f"{name}/#", qos=qos)
    return client


def test_what_is_in_flight_comes_again_marked_as_a_duplicate(
    new: Clients, sender: RawClient, name: str
) -> None:
    first = subscriber(new, name)
    for payload in (b"one", b"two", b"three"):
        sender.publish(f"{name}/x", payload)
    before = [first.message() for _ in range(3)]
    first.acknowledge(before[1])
    first.send(b"\xc0\0")
    first.receive()
    first.socket.close()

    again = new()
    assert again.connect(name) == b"\1\0"

    after = [again.message() for _ in range(2)]
    assert [(one.payload, one.dup) for one in before] == [
        (b"one", False),
        (b"two", False),
        (b"three", False),
    ]
    assert [(one.payload, one.dup, one.packet_id) for one in after] == [
        (b"one", True, before[0].packet_id),
        (b"three", True, before[2].packet_id),
    ]


def test_an_acknowledgement_may_take_longer_than_5_s(
    new: Clients, sender: RawClient, name: str
) -> None:
    slow = subscriber(new, name)
    sender.publish(f"{name}/x", b"kept")
    sender.publish(f"{name}/x", b"acknowledged late")
    messages = [slow.message(), slow.message()]

    time.sleep(5.3)
    slow.acknowledge(messages[1])
    slow.send(b"\xc0\0")
    slow.receive()
    slow.socket.close()

    again = new()
    again.connect(name)
    assert again.message().payload == b"kept"
    again.expect_silence()


def test_a_session_without_a_user_name_is_kept_while_its_client_is_away(
    new: Clients, sender: RawClient, name: str
) -> None:
    subscriber(new, name).disconnect()
    time.sleep(2.2)
    sender.publish(f"{name}/x", b"waited")

    back = new()

    assert back.connect(name) == b"\1\0"
    assert back.message().payload == b"waited"


def test_what_waited_for_a_client_is_not_marked_as_retained(
    new: Clients, sender: RawClient, name: str
) -> None:
    subscriber(new, name).disconnect()
    sender.publish(f"{name}/x", b"plain")
    sender.publish(f"{name}/y", b"state", retain=True)

    back = new()
    back.connect(name)

    assert [back.message().retain for _ in range(2)] == [False, False]


def test_what_waits_for_a_client_is_bounded_and_the_oldest_is_kept(
    new: Clients, sender: RawClient, name: str
) -> None:
    subscriber(new, name).disconnect()
    for number in range(1100):
        sender.publish(f"{name}/x", str(number).encode())

    back = new()
    back.connect(name)

    found = []
    while len(found) < 1000:
        found.append(back.message())
        back.acknowledge(found[-1])
    assert [int(one.payload) for one in found] == list(range(1000))
    back.expect_silence()


def test_a_slow_reader_has_a_window_of_20(new: Clients, sender: RawClient, name: str) -> None:
    slow = subscriber(new, name)
    for number in range(30):
        sender.publish(f"{name}/x", bytes([number]))

    held = [slow.message() for _ in range(20)]
    slow.expect_silence()
    slow.acknowledge(held[0])

    assert slow.message().payload == bytes([20])


@pytest.mark.parametrize(
    "levels", [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1), (1, 2, 1)], ids=str
)
def test_the_lower_qos_of_both_ends_counts(
    new: Clients, sender: RawClient, name: str, levels: tuple[int, int, int]
) -> None:
    published, granted, delivered = levels
    topic = f"{name}/{published}{granted}"
    receiver = new()
    receiver.connect(f"{name}{published}{granted}", clean=True)
    assert receiver.subscribe(topic, qos=granted) == bytes([min(granted, 1)])

    sender.send(publish_packet(topic, b"x", qos=published))

    assert receiver.message().qos == delivered


def test_a_retained_message_comes_once_with_the_lower_qos_and_its_flag(
    new: Clients, sender: RawClient, name: str
) -> None:
    sender.publish(f"{name}/state", b"on", retain=True)

    low = subscriber(new, name, qos=0)

    arrived = low.message()
    assert (arrived.payload, arrived.retain, arrived.qos) == (b"on", True, 0)
    low.expect_silence()


def test_overlapping_filters_of_one_client_deliver_once(
    new: Clients, sender: RawClient, name: str
) -> None:
    client = new()
    client.connect(name)
    client.subscribe(f"{name}/#", f"{name}/+", f"{name}/x")

    sender.publish(f"{name}/x", b"once")

    client.acknowledge(client.message())
    client.expect_silence()


def test_a_takeover_publishes_the_old_will_once_and_keeps_the_session(
    new: Clients, sender: RawClient, name: str
) -> None:
    watcher = new()
    watcher.connect(f"{name}-watcher")
    watcher.subscribe(f"{name}/will")
    old = new()
    old.connect(name, will=(f"{name}/will", b"boot 1"))
    old.subscribe(f"{name}/x")

    taker = new()
    assert taker.connect(name, will=(f"{name}/will", b"boot 2")) == b"\1\0"

    old.expect_closed()
    assert watcher.message().payload == b"boot 1"
    sender.publish(f"{name}/x", b"for the new one")
    assert taker.message().payload == b"for the new one"
    taker.disconnect()
    watcher.expect_silence()


def test_two_simultaneous_takeovers_leave_one_connection(
    new: Clients, sender: RawClient, name: str
) -> None:
    clients = [new() for _ in range(6)]
    for client in clients:
        client.send(packet(0x10, text("MQTT") + b"\4\0\0\0" + text(name)))
    time.sleep(0.3)

    alive = []
    for client in clients:
        client.send(b"\xc0\0")
        try:
            while client.receive()[0] != 0xD0:
                pass
            alive.append(client)
        except (EOFError, ConnectionError):
            pass

    assert len(alive) == 1
    alive[0].subscribe(f"{name}/x")
    sender.publish(f"{name}/x", b"alive")
    assert alive[0].message().payload == b"alive"


def test_a_clean_session_forgets_subscriptions_and_mail(
    new: Clients, sender: RawClient, name: str
) -> None:
    subscriber(new, name).disconnect()
    sender.publish(f"{name}/x", b"waits")

    clean = new()
    assert clean.connect(name, clean=True) == b"\0\0"
    sender.publish(f"{name}/x", b"nobody's")
    clean.expect_silence()
    clean.disconnect()

    assert new().connect(name) == b"\0\0"


def test_an_unsubscribed_filter_is_silent(new: Clients, sender: RawClient, name: str) -> None:
    client = subscriber(new, name)

    client.send(packet(0xA2, b"\0\5" + text(f"{name}/#")))

    assert client.receive() == (0xB0, b"\0\5")
    sender.publish(f"{name}/x", b"x")
    client.expect_silence()


def test_a_model_of_40_mb_reaches_8_devices_in_chunks(broker: ProcessBroker) -> None:
    chunks, devices = 160, [f"m{number}" for number in range(8)]
    received: queue.SimpleQueue[object] = queue.SimpleQueue()
    everyone = Address.of_everyone("big")
    sender_events: queue.SimpleQueue[object] = queue.SimpleQueue()
    sessions = [_session(broker, "big-sender", (), sender_events)]
    sessions += [
        _session(broker, device, device_filters("big", device), received) for device in devices
    ]
    began = time.monotonic()
    try:
        for session in sessions:
            session.start()
        assert isinstance(sender_events.get(timeout=10.0), Connected)
        for _ in devices:
            assert isinstance(received.get(timeout=10.0), Connected)
        _multicast(sessions[0], everyone, chunks, received, len(devices))
    finally:
        for session in sessions:
            session.stop()
    assert time.monotonic() - began < 40.0


def _session(
    broker: ProcessBroker,
    client_id: str,
    filters: tuple[str, ...],
    events: "queue.SimpleQueue[object]",
) -> PahoSession:
    return PahoSession(
        broker.url,
        name=client_id,
        mqtt_client_id=client_id,
        filters=filters,
        events=events,
        protocol="3.1.1",
    )


def _multicast(
    sender: PahoSession,
    everyone: Address,
    chunks: int,
    received: "queue.SimpleQueue[object]",
    receivers: int,
) -> None:
    """Publish the chunks as fast as the budget lets them; count what arrives, per chunk."""
    sent, counts = 0, [0] * chunks
    while sum(counts) < chunks * receivers:
        while sent < chunks and sender.publish(
            Outgoing(
                Topic(Kind.BLOCK, everyone, sha16="0" * 16, k=sent),
                sent.to_bytes(2, "big") * (128 * KIB),
            )
        ):
            sent += 1
        event = received.get(timeout=20.0)
        assert isinstance(event, MessageArrived)
        event.ack()
        assert len(event.payload) == 256 * KIB
        counts[int.from_bytes(event.payload[-2:], "big")] += 1
    assert counts == [receivers] * chunks
