"""The broker in memory: determinism, and every fault that it can make."""

import queue
from typing import Any

import numpy as np
import pytest

from schemas.topics import Address, Kind, Topic, device_filters
from transport.events import Connected, Disconnected, MessageArrived, Outgoing, Published
from transport.memory import MemoryBroker
from transport.memory_session import MemorySession

DEVICE = Address("eu", "d1")
STATE = Topic(Kind.STATE, DEVICE)
COUNT = 400

Events = queue.SimpleQueue[Any]


def new_broker(seed: int = 1, **faults: float) -> MemoryBroker:
    return MemoryBroker(np.random.default_rng(seed), **faults)


def connected(
    broker: MemoryBroker, client_id: str, filters: tuple[str, ...] = (), **options: Any
) -> tuple[MemorySession, Events]:
    events: Events = queue.SimpleQueue()
    session = broker.session(
        name="main", mqtt_client_id=client_id, filters=filters, events=events, **options
    )
    session.start()
    broker.pump()
    assert isinstance(events.get_nowait(), Connected)
    return session, events


def drain(broker: MemoryBroker, events: Events) -> list[Any]:
    """Return everything that comes, each message acknowledged."""
    found = []
    while broker.pump() or not events.empty():
        while not events.empty():
            event = events.get_nowait()
            found.append(event)
            if isinstance(event, MessageArrived):
                event.ack()
    return found


def block(k: int) -> Outgoing:
    return Outgoing(Topic(Kind.BLOCK, DEVICE, sha16="0" * 16, k=k), b"x", token=k)


def traffic(seed: int, **faults: float) -> tuple[list[int], MemoryBroker]:
    """Return the chunk numbers that arrive when ``COUNT`` are published."""
    broker = new_broker(seed, **faults)
    _, received = connected(broker, "receiver", device_filters("eu", "d1"))
    sender, sent = connected(broker, "sender")
    for k in range(COUNT):
        assert sender.publish(block(k))
    arrived = drain(broker, received)
    assert len(drain(broker, sent)) == COUNT, "every one must be acknowledged"
    return [int(event.topic_name.rsplit("/", 1)[1]) for event in arrived], broker


def test_without_faults_everything_arrives_once_and_in_order() -> None:
    assert traffic(1)[0] == list(range(COUNT))


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    faults = {"loss": 0.1, "duplicate": 0.1, "reorder": 0.3}

    assert traffic(5, **faults)[0] == traffic(5, **faults)[0] != traffic(6, **faults)[0]


def test_lost_messages_are_acknowledged_and_counted() -> None:
    arrived, broker = traffic(1, loss=0.25)

    assert broker.lost == COUNT - len(arrived)
    assert 0.15 * COUNT < broker.lost < 0.35 * COUNT


def test_duplicates_come_as_new_messages() -> None:
    arrived, _ = traffic(1, duplicate=0.25)

    assert set(arrived) == set(range(COUNT))
    assert 1.15 * COUNT < len(arrived) < 1.35 * COUNT


def test_reordered_messages_all_arrive() -> None:
    arrived, _ = traffic(1, reorder=0.5)

    assert sorted(arrived) == list(range(COUNT)) != arrived


def test_nothing_happens_without_a_step() -> None:
    broker = new_broker()
    _, received = connected(broker, "receiver", device_filters("eu", "d1"))
    sender, _ = connected(broker, "sender")
    assert not broker.step()

    sender.publish(block(0))
    assert received.empty()
    assert broker.step()
    assert received.empty()
    assert broker.step()

    assert isinstance(received.get_nowait(), MessageArrived)


def test_a_cut_client_is_told_its_will_speaks_and_its_mail_waits() -> None:
    broker = new_broker()
    session, events = connected(
        broker, "d1", device_filters("eu", "d1"), will=Outgoing(STATE, b"gone")
    )
    sender, _ = connected(broker, "sender")

    broker.cut("d1")
    sender.publish(block(1))
    broker.pump()

    assert [type(event) for event in drain(broker, events)] == [Disconnected]
    assert broker.retained == {STATE.name: b"gone"}
    assert not session.publish(block(2))
    assert session.is_alive

    broker.heal("d1")
    found = drain(broker, events)
    assert [type(event) for event in found] == [Connected, MessageArrived]


def test_a_client_that_starts_while_it_is_cut_off_connects_when_healed() -> None:
    broker = new_broker()
    broker.cut("d1")
    events: Events = queue.SimpleQueue()
    session = broker.session(name="main", mqtt_client_id="d1", filters=(), events=events)
    session.start()
    broker.pump()
    assert events.empty()

    broker.heal("d1")
    broker.pump()

    assert isinstance(events.get_nowait(), Connected)


def test_what_was_taken_on_before_a_cut_is_carried_after_it() -> None:
    broker = new_broker()
    _, received = connected(broker, "receiver", device_filters("eu", "d1"))
    sender, sent = connected(broker, "sender")
    assert sender.publish(block(1))
    assert sender.publish(Outgoing(Topic(Kind.HEARTBEAT, DEVICE), b"lost"))

    broker.cut("sender")
    broker.heal("sender")

    found = drain(broker, sent)
    assert [type(event) for event in found] == [Disconnected, Connected, Published]
    assert len(drain(broker, received)) == 1


@pytest.mark.parametrize(("keeps", "arrivals"), [(True, 2), (False, 0)])
def test_a_restarted_broker_remembers_only_what_it_has_stored(keeps: bool, arrivals: int) -> None:
    broker = new_broker()
    session, _ = connected(broker, "receiver", device_filters("eu", "d1"))
    session.crash()
    sender, sent = connected(broker, "sender")
    sender.publish(block(1))
    sender.publish(block(2))
    sender.publish(Outgoing(STATE, b"on"))
    drain(broker, sent)

    broker.restart(keeps_sessions=keeps)

    assert [type(event) for event in drain(broker, sent)] == [Disconnected, Connected]
    _, events = connected(broker, "receiver", device_filters("eu", "d1"))
    assert len(drain(broker, events)) == arrivals
    assert bool(broker.retained) == keeps


def test_a_crashed_session_hears_nothing_more() -> None:
    broker = new_broker()
    session, events = connected(broker, "d1", device_filters("eu", "d1"))
    sender, _ = connected(broker, "sender")
    sender.publish(block(1))

    session.crash()
    broker.pump()
    broker.restart()

    assert drain(broker, events) == []
    assert not session.is_alive


def test_a_cut_of_one_client_leaves_the_others_alone() -> None:
    broker = new_broker()
    _, received = connected(broker, "receiver", device_filters("eu", "d1"))
    sender, _ = connected(broker, "sender")
    broker.cut("nobody")

    sender.publish(block(1))

    assert len(drain(broker, received)) == 1


def test_more_messages_than_the_window_all_arrive_with_qos_0_between() -> None:
    broker = new_broker()
    heartbeat = Topic(Kind.HEARTBEAT, DEVICE)
    _, received = connected(broker, "receiver", ("fl/v1/eu/d1/#",))
    sender, _ = connected(broker, "sender")
    for k in range(60):
        sender.publish(block(k))
        sender.publish(Outgoing(heartbeat, b"beat"))

    assert len(drain(broker, received)) == 120


def test_programs_on_threads_need_no_pump() -> None:
    broker = new_broker()
    with broker.background():
        events: Events = queue.SimpleQueue()
        session = broker.session(
            name="main", mqtt_client_id="d1", filters=device_filters("eu", "d1"), events=events
        )
        session.start()
        assert isinstance(events.get(timeout=5.0), Connected)

        session.publish(block(3))

        found = {type(events.get(timeout=5.0)) for _ in range(2)}
        assert found == {Published, MessageArrived}
