"""What every session keeps to, over paho at two brokers and in memory."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from schemas.limits import KIB, MAX_PAYLOAD_BYTES
from schemas.topics import Address, Kind, Topic
from tests.support.brokers import REPOSITORY
from tests.support.brokers_places import (
    PLACES,
    REGION,
    Brokers,
    PahoPlace,
    Place,
    all_brokers,
    fresh_device,
    message,
    state,
    state_filters,
)
from transport.events import Connected, Disconnected, MessageArrived, Outgoing, Published


@pytest.fixture(scope="module")
def brokers() -> Iterator[Brokers]:
    with all_brokers() as running:
        yield running


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, brokers: Brokers) -> Iterator[Place]:
    chosen = brokers.place(request.param)
    yield chosen
    chosen.close()


@pytest.fixture(params=[name for name in PLACES if name != "memory"])
def paho_place(request: pytest.FixtureRequest, brokers: Brokers) -> Iterator[PahoPlace]:
    chosen = brokers.place(request.param)
    assert isinstance(chosen, PahoPlace)
    yield chosen
    chosen.close()


@pytest.fixture
def device() -> str:
    return fresh_device()


def test_a_published_message_arrives_as_it_was_sent(place: Place, device: str) -> None:
    receiver, sender = place.program(device).connect(), place.sender(device)
    payload = bytes(range(256)) * 3

    assert sender.session.publish(message(device, payload, k=7))

    arrived = receiver.expect(MessageArrived)
    assert arrived.payload == payload
    assert arrived.topic_name == message(device, b"", k=7).topic.name
    assert arrived.session == "device"
    assert not arrived.retained


def test_a_large_payload_arrives_whole(place: Place, device: str) -> None:
    receiver, sender = place.program(device).connect(), place.sender(device)
    payload = bytes(range(256)) * (900 * 4)
    assert len(payload) == 900 * KIB

    assert sender.session.publish(message(device, payload))

    assert receiver.payloads(1) == [payload]


def test_an_oversize_payload_is_refused_and_the_session_stays(place: Place, device: str) -> None:
    receiver, sender = place.program(device).connect(), place.sender(device)

    with pytest.raises(ValueError, match=str(MAX_PAYLOAD_BYTES)):
        sender.session.publish(message(device, bytes(MAX_PAYLOAD_BYTES + 1)))
    assert sender.session.publish(message(device, bytes(MAX_PAYLOAD_BYTES)))

    assert [len(payload) for payload in receiver.payloads(1)] == [MAX_PAYLOAD_BYTES]


def test_an_oversize_payload_is_refused_without_a_connection(place: Place, device: str) -> None:
    with pytest.raises(ValueError, match="limit"):
        place.program(device).session.publish(message(device, bytes(MAX_PAYLOAD_BYTES + 1)))


def test_the_broker_acknowledges_a_message_with_a_token(place: Place, device: str) -> None:
    sender = place.sender(device)

    sender.session.publish(message(device, b"x"))
    sender.session.publish(message(device, b"y", token=42))

    assert sender.expect(Published) == Published("sender", 42)
    sender.expect_none(Published, within_s=0.05)


def test_a_heartbeat_of_qos_0_arrives_and_needs_no_acknowledgement(
    place: Place, device: str
) -> None:
    topic = Topic(Kind.HEARTBEAT, Address(REGION, device))
    receiver = place.program(device, filters=(topic.name,)).connect()
    sender = place.sender(device)

    assert sender.session.publish(Outgoing(topic, b"beat"))

    arrived = receiver.expect(MessageArrived)
    arrived.ack()
    assert arrived.payload == b"beat"


def test_many_messages_arrive_once_and_in_order_within_a_small_budget(
    place: Place, device: str
) -> None:
    receiver = place.program(device).connect()
    sender = place.sender(device, budget_bytes=512 * KIB)
    sent = refused = 0
    deadline = time.monotonic() + 20.0

    while sent < 100:
        assert time.monotonic() < deadline
        if sender.session.publish(message(device, sent.to_bytes(2, "big") * 32 * KIB)):
            sent += 1
        else:
            refused += 1
            place.pump()
            time.sleep(0.001)

    assert [int.from_bytes(payload[:2], "big") for payload in receiver.payloads(100)] == list(
        range(100)
    )
    assert refused > 0
    receiver.expect_none(MessageArrived, within_s=0.05)


def test_retained_state_reaches_whoever_subscribes_later(place: Place, device: str) -> None:
    sender = place.sender(device)
    sender.session.publish(Outgoing(state(device), b"first", token=1))
    sender.session.publish(Outgoing(state(device), b"online", token=2))
    sender.expect(Published, lambda event: event.token == 2)

    late = place.program(device, role="late", filters=state_filters(device)).connect()

    arrived = late.expect(MessageArrived)
    assert (arrived.payload, arrived.retained) == (b"online", True)
    late.expect_none(MessageArrived, within_s=0.05)


def test_live_state_does_not_carry_the_retained_flag(place: Place, device: str) -> None:
    watcher = place.program(device, filters=state_filters(device)).connect()

    place.sender(device).session.publish(Outgoing(state(device), b"online"))

    assert not watcher.expect(MessageArrived).retained


def test_an_empty_retained_message_clears_the_state(place: Place, device: str) -> None:
    sender = place.sender(device)
    sender.session.publish(Outgoing(state(device), b"online"))
    sender.session.publish(Outgoing(state(device), b"", retain=True, token=1))
    sender.expect(Published)

    late = place.program(device, role="late", filters=state_filters(device)).connect()

    late.expect_none(MessageArrived)


def test_the_will_speaks_for_a_session_that_breaks_off(place: Place, device: str) -> None:
    watcher = place.program(device, role="watcher", filters=state_filters(device)).connect()
    doomed = place.program(device, filters=(), will=Outgoing(state(device), b"gone")).connect()

    place.crash(doomed.session)

    assert watcher.payloads(1) == [b"gone"]
    late = place.program(device, role="late", filters=state_filters(device)).connect()
    assert late.payloads(1) == [b"gone"]


def test_the_will_speaks_for_a_killed_process(paho_place: PahoPlace, device: str) -> None:
    place = paho_place
    watcher = place.program(device, role="watcher", filters=state_filters(device)).connect()
    arguments = [place.broker.url, place.protocol, REGION, device]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.brokers_victim", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    ) as victim:
        assert victim.stdout is not None
        while b"READY" not in victim.stdout.readline():
            assert victim.poll() is None

        victim.kill()

        assert watcher.payloads(2) == [b"online", b"offline"]


def test_a_farewell_is_published_and_the_will_is_not(place: Place, device: str) -> None:
    watcher = place.program(device, role="watcher", filters=state_filters(device)).connect()
    leaver = place.program(device, filters=(), will=Outgoing(state(device), b"gone")).connect()

    leaver.session.stop(Outgoing(state(device), b"farewell"))

    assert watcher.payloads(1) == [b"farewell"]
    watcher.expect_none(MessageArrived)
    assert not leaver.session.is_alive
    assert not leaver.session.is_connected


def test_a_farewell_follows_what_was_taken_on_before(place: Place, device: str) -> None:
    receiver = place.program(device).connect()
    leaver = place.sender(device)
    for number in range(10):
        assert leaver.session.publish(message(device, bytes([number])))

    leaver.session.stop(message(device, b"farewell"))

    assert b"farewell" in receiver.payloads(1) + receiver.payloads(10)


def test_messages_of_qos_1_wait_for_a_session_that_is_away(place: Place, device: str) -> None:
    place.program(device).connect().session.stop()
    sender = place.sender(device)
    for number in range(5):
        sender.session.publish(message(device, bytes([number]), token=number))
    sender.expect(Published, lambda event: event.token == 4)

    back = place.program(device).connect()

    assert back.payloads(5) == [bytes([number]) for number in range(5)]
    assert not any(arrived.retained for arrived in back._seen if hasattr(arrived, "retained"))


def test_unacknowledged_messages_come_again_and_acknowledged_ones_do_not(
    place: Place, device: str
) -> None:
    first, sender = place.program(device).connect(), place.sender(device)
    for number in range(4):
        sender.session.publish(message(device, bytes([number])))
    arrived = first.messages(4)
    arrived[0].ack()
    arrived[2].ack()
    sender.session.publish(message(device, b"last"))
    first.expect(MessageArrived).ack()
    time.sleep(0.1)

    place.crash(first.session)
    again = place.program(device).connect()

    assert sorted(again.payloads(2)) == [b"\x01", b"\x03"]
    again.expect_none(MessageArrived)


def test_an_old_acknowledgement_after_a_reconnect_is_harmless(place: Place, device: str) -> None:
    first, sender = place.program(device).connect(), place.sender(device)
    sender.session.publish(message(device, b"one"))
    old = first.expect(MessageArrived)
    place.crash(first.session)

    again = place.program(device).connect()
    thread = threading.Thread(target=old.ack)
    thread.start()
    thread.join()
    new = again.expect(MessageArrived)
    old.ack()
    new.ack()
    new.ack()

    sender.session.publish(message(device, b"two"))
    assert again.payloads(1) == [b"two"]
    assert again.session.is_alive


def test_nothing_is_taken_on_before_the_start(place: Place, device: str) -> None:
    program = place.program(device)

    assert not program.session.is_alive
    assert not program.session.is_connected
    assert not program.session.publish(message(device, b"early"))


def test_a_session_survives_its_broker_and_is_subscribed_again(place: Place, device: str) -> None:
    receiver, sender = place.program(device).connect(), place.sender(device)
    assert receiver.session.is_connected

    place.stop_broker()
    receiver.expect(Disconnected)
    sender.expect(Disconnected)
    assert not sender.session.is_connected
    assert not sender.session.publish(message(device, b"while away"))
    place.start_broker()
    receiver.expect(Connected)
    sender.expect(Connected)

    assert sender.session.publish(message(device, b"back"))
    assert receiver.payloads(1) == [b"back"]
    receiver.expect_none(MessageArrived)


def test_a_takeover_never_publishes_the_will_of_the_session_that_takes_over(
    place: Place, device: str
) -> None:
    watcher = place.program(device, role="watcher", filters=state_filters(device)).connect()
    first = place.program(device, filters=(), will=Outgoing(state(device), b"boot 1")).connect()

    second = place.program(device, filters=(), will=Outgoing(state(device), b"boot 2"))
    second.session.start()
    first.expect(Disconnected)
    first.session.stop()
    second.expect(Connected)

    # Mosquitto keeps silent, the others publish the first one's Will.
    watcher.expect_none(MessageArrived, lambda event: event.payload != b"boot 1")


def test_an_event_queue_that_fails_does_not_end_the_session(
    paho_place: PahoPlace, device: str
) -> None:
    place = paho_place
    receiver = place.program(device)
    connection_events = receiver.events

    class Broken:
        failures = 0

        def put(self, event: object) -> None:
            if isinstance(event, MessageArrived) and event.payload == b"poison":
                Broken.failures += 1
                raise RuntimeError
            connection_events.put(event)

    receiver.session._events = Broken()
    receiver.connect()
    sender = place.sender(device)

    sender.session.publish(message(device, b"poison"))
    sender.session.publish(message(device, b"fine"))

    assert receiver.payloads(1) == [b"fine"]
    assert Broken.failures == 1
    assert receiver.session.is_alive
