"""A session in memory: what is retained comes on connect, and a script answers publishes."""

import queue
from collections.abc import Callable, Iterable

import pytest

from fedfleet import client as client_module
from transport.events import Connected, MessageArrived, Outgoing, Published

Answer = Callable[[Outgoing], Iterable[tuple[str, bytes]]]


class FakeSession:
    """Stands in for the broker and for central behind it."""

    name = "main"
    is_alive = True

    def __init__(self, world, filters, events):
        self._world = world
        self._events = events
        self.filters = filters
        self.is_connected = False

    def start(self):
        if not self._world.is_reachable:
            return
        self.is_connected = True
        for topic_name, payload in self._world.retained.items():
            if any(matches(item, topic_name) for item in self.filters):
                self._arrive(topic_name, payload, retained=True)
        self._events.put(Connected(self.name))
        for topic_name, payload in self._world.later:
            self._arrive(topic_name, payload, retained=False)

    def publish(self, message):
        self._world.published.append(message)
        if not self._world.acknowledges:
            return False
        self._events.put(Published(self.name, message.token))
        for topic_name, payload in self._world.answer(message):
            self._arrive(topic_name, payload, retained=False)
        return True

    def stop(self, farewell=None):
        self._world.stopped += 1

    def _arrive(self, topic_name, payload, *, retained):
        def ack():
            self._world.acked += 1

        self._events.put(MessageArrived(self.name, topic_name, payload, retained, ack))


class World:
    """What a broker holds and how the fleet behind it answers."""

    def __init__(self):
        self.is_reachable = True
        self.acknowledges = True
        self.retained: dict[str, bytes] = {}
        self.later: list[tuple[str, bytes]] = []
        self.published: list[Outgoing] = []
        self.answer: Answer = lambda message: ()
        self.acked = 0
        self.stopped = 0
        self.settings = None

    def make_session(self, settings, filters, events: "queue.SimpleQueue"):
        self.settings = settings
        return FakeSession(self, filters, events)


def matches(topic_filter, topic_name):
    """MQTT 3.1.1, section 4.7."""
    wanted, levels = topic_filter.split("/"), topic_name.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


@pytest.fixture
def world(monkeypatch):
    made = World()
    monkeypatch.setattr(client_module, "make_session", made.make_session)
    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(client_module, "QUIET_S", 0.02)
    for name in ("FEDFLEET_BROKER", "FEDFLEET_MQTT_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)
    return made
