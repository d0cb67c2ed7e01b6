"""The places where the session contract is tested: a broker, a protocol, and how to drive them."""

import contextlib
import itertools
import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from schemas.topics import Address, Kind, Topic, device_filters
from tests.support.brokers import ProcessBroker, embedded_broker, memory_broker, mosquitto_broker
from transport.events import (
    Connected,
    Disconnected,
    MessageArrived,
    Outgoing,
    Published,
    Session,
    SessionEvent,
)
from transport.memory import MemoryBroker
from transport.memory_session import MemorySession
from transport.session import PahoSession

EventT = TypeVar("EventT", Connected, Disconnected, MessageArrived, Published)

REGION = "eu"
_WITHIN_S = 10.0
_numbers = itertools.count()


def fresh_device() -> str:
    """Return a device id that no other test of this run uses."""
    return f"d{next(_numbers)}"


class Program:
    """A program's end of one session: its queue, and what has come out of it so far."""

    def __init__(self, place: "Place", **options: Any) -> None:
        self.place = place
        self.events: queue.SimpleQueue[SessionEvent] = queue.SimpleQueue()
        self.session: Session = place.build(events=self.events, **options)
        self._seen: list[SessionEvent] = []

    def connect(self) -> "Program":
        self.session.start()
        self.expect(Connected)
        return self

    def expect(
        self, kind: type[EventT], that: Callable[[EventT], bool] = lambda _: True
    ) -> EventT:
        """Return the next event of a kind; events before it stay for later calls."""
        found = self.poll(kind, that, _WITHIN_S)
        if found is None:
            pytest.fail(f"no {kind.__name__} within {_WITHIN_S} s; seen: {self._seen[-5:]}")
        return found

    def messages(self, count: int) -> list[MessageArrived]:
        """Return the next so many messages."""
        return [self.expect(MessageArrived) for _ in range(count)]

    def payloads(self, count: int) -> list[bytes]:
        """Return the payloads of the next so many messages, each acknowledged at once."""
        found = []
        for _ in range(count):
            arrived = self.expect(MessageArrived)
            arrived.ack()
            found.append(arrived.payload)
        return found

    def expect_none(
        self,
        kind: type[EventT],
        that: Callable[[EventT], bool] = lambda _: True,
        within_s: float = 0.2,
    ) -> None:
        """Fail when such an event comes."""
        assert self.poll(kind, that, within_s) is None

    def poll(
        self, kind: type[EventT], that: Callable[[EventT], bool], within_s: float
    ) -> EventT | None:
        deadline = time.monotonic() + within_s
        while True:
            for i, event in enumerate(self._seen):
                if isinstance(event, kind) and that(event):
                    return self._seen.pop(i)
            self.place.pump()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            with contextlib.suppress(queue.Empty):
                self._seen.append(self.events.get(timeout=min(left_s, self.place.patience_s)))


class Place(ABC):
    """A broker and a protocol; subclasses say how sessions are made and broken there."""

    patience_s = 1.0

    def __init__(self) -> None:
        self._sessions: list[Session] = []

    def program(self, device: str, role: str = "device", **options: Any) -> Program:
        """Return a program whose session has the device's filters; it is not yet started."""
        options.setdefault("filters", device_filters(REGION, device))
        options.setdefault("mqtt_client_id", f"{role}-{device}")
        return Program(self, name=role, **options)

    def sender(self, device: str, **options: Any) -> Program:
        """Return a connected program that subscribes to nothing."""
        return self.program(device, role="sender", filters=(), **options).connect()

    @abstractmethod
    def build(self, **options: Any) -> Session:
        """Return a session at this place; it is not yet started."""

    @abstractmethod
    def crash(self, session: Session) -> None:
        """Break a session off as if its program had been killed."""

    @abstractmethod
    def stop_broker(self) -> None:
        """End the broker at once."""

    @abstractmethod
    def start_broker(self) -> None:
        """Begin the broker again at the same address."""

    def pump(self) -> None:  # noqa: B027 - at most places everything happens by itself
        """Let what is queued happen, where nothing happens by itself."""

    def close(self) -> None:
        for session in self._sessions:
            session.stop()


class PahoPlace(Place):
    def __init__(self, broker: ProcessBroker, protocol: str) -> None:
        super().__init__()
        self.broker = broker
        self.protocol = protocol

    def build(self, **options: Any) -> PahoSession:
        options.setdefault("protocol", self.protocol)
        session = PahoSession(self.broker.url, reconnect_s=(0.02, 0.2), **options)
        self._sessions.append(session)
        return session

    def crash(self, session: Session) -> None:
        assert isinstance(session, PahoSession)
        assert session._connection is not None
        session._connection.cut()
        session._stop.set()
        session._thread.join()

    def stop_broker(self) -> None:
        self.broker.kill()

    def start_broker(self) -> None:
        self.broker.start()


class MemoryPlace(Place):
    patience_s = 0.01

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__()
        self.broker = broker
        self._clients: set[str] = set()

    def build(self, **options: Any) -> MemorySession:
        session = self.broker.session(**options)
        self._sessions.append(session)
        self._clients.add(session.mqtt_client_id)
        return session

    def crash(self, session: Session) -> None:
        assert isinstance(session, MemorySession)
        session.crash()

    def stop_broker(self) -> None:
        self.broker.restart()
        for client_id in sorted(self._clients):
            self.broker.cut(client_id)

    def start_broker(self) -> None:
        for client_id in sorted(self._clients):
            self.broker.heal(client_id)

    def pump(self) -> None:
        self.broker.pump()


PLACES = (
    "mosquitto-3.1.1",
    "mosquitto-5",
    "mosquitto-auto",
    "embedded-3.1.1",
    "embedded-auto",
    "memory",
)


class Brokers:
    """Starts each broker when the first test needs it, and ends them all together."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._running: dict[str, ProcessBroker] = {}

    def place(self, name: str) -> Place:
        kind, _, protocol = name.partition("-")
        if kind == "memory":
            return MemoryPlace(self._stack.enter_context(memory_broker()))
        return PahoPlace(self.process(kind), protocol)

    def process(self, kind: str) -> ProcessBroker:
        if kind not in self._running:
            start = mosquitto_broker if kind == "mosquitto" else embedded_broker
            self._running[kind] = self._stack.enter_context(start())
        return self._running[kind]

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def all_brokers() -> Iterator[Brokers]:
    brokers = Brokers()
    try:
        yield brokers
    finally:
        brokers.close()


def block(device: str, k: int = 0) -> Topic:
    """Return a topic of QoS 1 that the device subscribes to."""
    return Topic(Kind.BLOCK, Address(REGION, device), sha16="0" * 16, k=k)


def state(device: str) -> Topic:
    """Return the device's retained state topic."""
    return Topic(Kind.STATE, Address(REGION, device))


def state_filters(device: str) -> tuple[str, ...]:
    return (state(device).name,)


def message(device: str, payload: bytes, k: int = 0, **options: Any) -> Outgoing:
    return Outgoing(block(device, k), payload, **options)
